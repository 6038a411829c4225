// Group normalisation with SiLU of feature maps with channels innermost: they are read twice and written once.
// group_norm_cpu.py compiles and calls it. The number of channels is a multiple of 32.

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define LANES 32   // channels that are added up side by side, in registers
#define ROWS 32    // pixels whose sum is in float32; sums of these are in float64
#define SHARED 16  // most threads that share one image

#define INLINE static inline __attribute__((always_inline))

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE uint32_t as_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

// A feature map holds bfloat16 if `half`, else float. Each function is compiled for both.
INLINE float load(const void *x, int64_t place, bool half) {
    return half ? as_float((uint32_t)((const uint16_t *)x)[place] << 16) : ((const float *)x)[place];
}

INLINE void store(void *y, int64_t place, float value, bool half) {
    if (half) {  // to the nearest, ties to even; NaN stays NaN
        uint32_t bits = as_bits(value), rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
        ((uint16_t *)y)[place] = value != value ? 0x7FC0 : (uint16_t)rounded;
    } else {
        ((float *)y)[place] = value;
    }
}

// v / (1 + exp(-v)). exp(u) = 2^k exp(f), with the polynomial of the Cephes library for |f| <= ln(2) / 2.
INLINE float silu_of(float v) {
    float u = -v;
    u = u < -87.0f ? -87.0f : u;  // these conditions become vector instructions, unlike fmaxf; NaN stays NaN
    u = u > 88.0f ? 88.0f : u;
    float k = rintf(u * 1.44269504f);
    float f = (u - k * 0.693359375f) + k * 2.12194440e-4f, p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    float power = as_float((uint32_t)((int32_t)k + 127) << 23);
    return v / (1.0f + (p * f * f + f + 1.0f) * power);
}

// The factors of all channels, then their terms, from the sums of their values and then of their squares.
static void factors_of(const double *sums, const float *weight, const float *bias, int64_t channels, int64_t groups,
                       double count, double eps, float *factors) {
    const double *squares = sums + channels;
    float *factor = factors, *term = factors + channels;
    int64_t width = channels / groups;
    for (int64_t first = 0; first < channels; first += width) {
        double mean = 0, variance = 0;
        for (int64_t c = first; c < first + width; c++) {
            mean += sums[c];
            variance += squares[c];
        }
        mean /= count;
        variance = variance / count - mean * mean;
        variance = variance < 0 ? 0 : variance;
        double scale = 1 / sqrt(variance + eps);
        for (int64_t c = first; c < first + width; c++) {
            factor[c] = (float)(weight[c] * scale);
            term[c] = (float)(bias[c] - mean * weight[c] * scale);
        }
    }
}

// Adds values and squares of the pixels from `first` to `end` to the sums of each channel.
INLINE void add_up(const void *x, int64_t first, int64_t end, int64_t channels, double *sums, bool half) {
    double *squares = sums + channels;
    for (; first < end; first += ROWS) {
        int64_t last = first + ROWS < end ? first + ROWS : end;
        for (int64_t c = 0; c < channels; c += LANES) {
            float sum[LANES] = {0}, square[LANES] = {0};
            for (int64_t pixel = first; pixel < last; pixel++)
                for (int lane = 0; lane < LANES; lane++) {
                    float value = load(x, pixel * channels + c + lane, half);
                    sum[lane] += value;
                    square[lane] += value * value;
                }
            for (int lane = 0; lane < LANES; lane++) {
                sums[c + lane] += sum[lane];
                squares[c + lane] += square[lane];
            }
        }
    }
}

// y = x factor + term, or the SiLU of it.
INLINE void apply(const void *restrict x, void *restrict y, int64_t first, int64_t end, int64_t channels,
                  const float *restrict factors, bool silu, bool half) {
    const float *factor = factors, *term = factors + channels;
    for (int64_t pixel = first; pixel < end; pixel++)
        for (int64_t c = 0; c < channels; c++) {
            float value = load(x, pixel * channels + c, half) * factor[c] + term[c];
            store(y, pixel * channels + c, silu ? silu_of(value) : value, half);
        }
}

static void add_up_of(const void *x, int64_t first, int64_t end, int64_t channels, double *sums, bool half) {
    if (half)
        add_up(x, first, end, channels, sums, true);
    else
        add_up(x, first, end, channels, sums, false);
}

static void apply_of(const void *x, void *y, int64_t first, int64_t end, int64_t channels, const float *factors,
                     bool silu, bool half) {
    if (half && silu)
        apply(x, y, first, end, channels, factors, true, true);
    else if (half)
        apply(x, y, first, end, channels, factors, false, true);
    else if (silu)
        apply(x, y, first, end, channels, factors, true, false);
    else
        apply(x, y, first, end, channels, factors, false, false);
}

// y = norm(x), or silu(norm(x)), of (images, pixels, channels). weight and bias are (channels,), or of each image where
// stride is `channels` and not 0. Threads share the images, or the pixels of each where there are fewer images.
void group_norm(const void *x, void *y, const float *weight, const float *bias, int64_t stride, int64_t images,
                int64_t pixels, int64_t channels, int64_t groups, double eps, bool silu, bool half, int threads) {
    double count = (double)pixels * channels / groups;
    if (images >= threads) {
#pragma omp parallel for if (threads > 1) num_threads(threads)
        for (int64_t n = 0; n < images; n++) {
            double sums[2 * channels];
            float factors[2 * channels];
            memset(sums, 0, sizeof sums);
            add_up_of(x, n * pixels, (n + 1) * pixels, channels, sums, half);
            factors_of(sums, weight + n * stride, bias + n * stride, channels, groups, count, eps, factors);
            apply_of(x, y, n * pixels, (n + 1) * pixels, channels, factors, silu, half);
        }
        return;
    }
    int parts = threads < SHARED ? threads : SHARED;
    int64_t blocks = (pixels + ROWS - 1) / ROWS, length = (blocks + parts - 1) / parts * ROWS;
    for (int64_t n = 0; n < images; n++) {
        double sums[SHARED][2 * channels];
        float factors[2 * channels];
        int64_t end = (n + 1) * pixels;
        memset(sums, 0, sizeof sums);
#pragma omp parallel for num_threads(parts)
        for (int k = 0; k < parts; k++) {
            int64_t first = n * pixels + k * length;
            add_up_of(x, first, first + length < end ? first + length : end, channels, sums[k], half);
        }
        for (int k = 1; k < parts; k++)
            for (int64_t c = 0; c < 2 * channels; c++) sums[0][c] += sums[k][c];
        factors_of(sums[0], weight + n * stride, bias + n * stride, channels, groups, count, eps, factors);
#pragma omp parallel for num_threads(parts)
        for (int k = 0; k < parts; k++) {
            int64_t first = n * pixels + k * length;
            apply_of(x, y, first, first + length < end ? first + length : end, channels, factors, silu, half);
        }
    }
}
