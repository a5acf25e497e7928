/* Batch norm with its activation, for channels-last images; called by fcnlab/kernels/batch_norm.py.
 *
 * An image is a sequence of `count` elements, whose channels repeat after `period` elements, a multiple of LANES. The
 * values of channels are given for one period. The activation is a clamp to low..high, infinite without one. Sums are
 * float32 over blocks of periods, and float64 over the blocks; each part has its own. */

#include "parts.h"
#include "vectors.h"

enum { BLOCK = 256 };

INLINE vector clamp(vector z, float low, float high) { /* nan stays nan */
    const vector zero = {0};
    z = where(z < zero + low, zero + low, z);
    return where(z > zero + high, zero + high, z);
}

/* The gradient of the activation's input; `z` is the input or the output. */
INLINE vector unclamp(vector gradient, vector z, float low, float high) {
    const vector zero = {0};
    return where((z <= zero + low) | (z >= zero + high), zero, gradient);
}

/* Add float32 sums [2, period] to float64 ones and clear them. */
static void flush(float *some, double *sums, long period) {
    for (long i = 0; i < 2 * period; i++) sums[i] += some[i];
    memset(some, 0, 2 * period * sizeof *some);
}

INLINE vector get(const float *from, long n) {
    vector read = {0};
    memcpy(&read, from, n * sizeof *from);
    return read;
}

INLINE void add(float *to, vector term, long n) {
    vector sum = get(to, n) + term;
    memcpy(to, &sum, n * sizeof *to);
}

INLINE vector get_fp32(const float *from, long n) { return get(from, n); }

INLINE void put_fp32(float *to, vector written, long n) { memcpy(to, &written, n * sizeof *to); }

INLINE vector get_bf16(const bfloat16 *from, long n) {
    bfloat16 some[LANES] = {0};
    memcpy(some, from, n * sizeof *from);
    return read_bf16(some);
}

INLINE void put_bf16(bfloat16 *to, vector written, long n) {
    bfloat16 some[LANES];
    write_bf16(some, written);
    memcpy(to, some, n * sizeof *to);
}

/* Run a statement for all vectors: `i` is the first element, `c` its position in the period, and `n` the number of
 * elements, a constant except for the last period. After each period, run AFTER. */
#define FOR_VECTORS(AFTER, ...)                                                                                        \
    for (long start = 0, block = 1; start < count; start += period, block++) {                                         \
        long width = count - start < period ? count - start : period, c = 0;                                           \
        for (; c + LANES <= width; c += LANES) {                                                                       \
            const long i = start + c, n = LANES;                                                                       \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        if (c < width) {                                                                                               \
            const long i = start + c, n = width - c;                                                                   \
            __VA_ARGS__                                                                                                \
        }                                                                                                              \
        AFTER                                                                                                          \
    }

#define FLUSH_SOMETIMES if (block % BLOCK == 0) flush(some, sums, period);

/* Run a statement for all parts of whole periods: `first` is the first element of a part, and `length` their number. */
#define FOR_PARTS_OF_IMAGE(...)                                                                                        \
    FOR_PARTS {                                                                                                        \
        Part periods = get_part((count + period - 1) / period, part, parts);                                           \
        long first = periods.first * period, whole = periods.count * period;                                           \
        long length = count - first < whole ? count - first : whole;                                                   \
        __VA_ARGS__                                                                                                    \
    }

#define DEFINE(TYPE, GET, PUT, SUFFIX)                                                                                 \
    static void sum_input_part_##SUFFIX(long count, long period, const TYPE *x, const float *shift, float *some,       \
                                        double *sums) {                                                                \
        FOR_VECTORS(FLUSH_SOMETIMES, {                                                                                 \
            vector value = GET(x + i, n) - get(shift + c, n);                                                          \
            add(some + c, value, n);                                                                                   \
            add(some + period + c, value * value, n);                                                                  \
        })                                                                                                             \
        flush(some, sums, period);                                                                                     \
    }                                                                                                                  \
                                                                                                                       \
    /* Add the sums of x - shift and of its square to sums [parts, 2, period]; some, of the same shape, is zero before \
     * and after. */                                                                                                   \
    void sum_input_##SUFFIX(long parts, long count, long period, const TYPE *x, const float *shift, float *some,       \
                            double *sums) {                                                                            \
        FOR_PARTS_OF_IMAGE({                                                                                           \
            long at = 2 * period * part;                                                                               \
            sum_input_part_##SUFFIX(length, period, x + first, shift, some + at, sums + at);                           \
        })                                                                                                             \
    }                                                                                                                  \
                                                                                                                       \
    static void normalize_part_##SUFFIX(long count, long period, const TYPE *x, TYPE *y, const float *scale,           \
                                        const float *bias, float low, float high) {                                    \
        FOR_VECTORS(, { PUT(y + i, clamp(get(scale + c, n) * GET(x + i, n) + get(bias + c, n), low, high), n); })      \
    }                                                                                                                  \
                                                                                                                       \
    /* y = clamp(scale x + bias) */                                                                                    \
    void normalize_##SUFFIX(long parts, long count, long period, const TYPE *x, TYPE *y, const float *scale,           \
                            const float *bias, float low, float high) {                                                \
        FOR_PARTS_OF_IMAGE(                                                                                            \
            { normalize_part_##SUFFIX(length, period, x + first, y + first, scale, bias, low, high); })                \
    }                                                                                                                  \
                                                                                                                       \
    static void sum_gradient_part_##SUFFIX(long count, long period, const TYPE *gradient, const TYPE *x,               \
                                           const float *scale, const float *bias, const float *mean, float low,        \
                                           float high, float *some, double *sums) {                                    \
        FOR_VECTORS(FLUSH_SOMETIMES, {                                                                                 \
            vector value = GET(x + i, n);                                                                              \
            vector z = get(scale + c, n) * value + get(bias + c, n);                                                   \
            vector slope = unclamp(GET(gradient + i, n), z, low, high);                                                \
            add(some + c, slope, n);                                                                                   \
            add(some + period + c, slope * (value - get(mean + c, n)), n);                                             \
        })                                                                                                             \
        flush(some, sums, period);                                                                                     \
    }                                                                                                                  \
                                                                                                                       \
    /* Add the sums of the gradient of clamp(scale x + bias)'s input, and of its product with x - mean. */             \
    void sum_gradient_##SUFFIX(long parts, long count, long period, const TYPE *gradient, const TYPE *x,               \
                               const float *scale, const float *bias, const float *mean, float low, float high,        \
                               float *some, double *sums) {                                                            \
        FOR_PARTS_OF_IMAGE({                                                                                           \
            long at = 2 * period * part;                                                                               \
            sum_gradient_part_##SUFFIX(length, period, gradient + first, x + first, scale, bias, mean, low, high,      \
                                       some + at, sums + at);                                                          \
        })                                                                                                             \
    }                                                                                                                  \
                                                                                                                       \
    static void input_gradient_part_##SUFFIX(long count, long period, const TYPE *gradient, const TYPE *x,             \
                                             TYPE *x_gradient, const float *scale, const float *bias,                  \
                                             const float *mean, const float *offset, const float *share, float low,    \
                                             float high) {                                                             \
        FOR_VECTORS(, {                                                                                                \
            vector value = GET(x + i, n), factor = get(scale + c, n);                                                  \
            vector slope = unclamp(GET(gradient + i, n), factor * value + get(bias + c, n), low, high);                \
            vector rest = get(offset + c, n) + get(share + c, n) * (value - get(mean + c, n));                         \
            PUT(x_gradient + i, factor * slope - rest, n);                                                             \
        })                                                                                                             \
    }                                                                                                                  \
                                                                                                                       \
    /* x_gradient = scale slope - offset - share (x - mean), with the gradient `slope` of clamp(scale x + bias)'s input */ \
    void input_gradient_##SUFFIX(long parts, long count, long period, const TYPE *gradient, const TYPE *x,             \
                                 TYPE *x_gradient, const float *scale, const float *bias, const float *mean,           \
                                 const float *offset, const float *share, float low, float high) {                     \
        FOR_PARTS_OF_IMAGE({                                                                                           \
            input_gradient_part_##SUFFIX(length, period, gradient + first, x + first, x_gradient + first, scale, bias, \
                                         mean, offset, share, low, high);                                              \
        })                                                                                                             \
    }                                                                                                                  \
                                                                                                                       \
    static void scale_gradient_part_##SUFFIX(long count, long period, const TYPE *gradient, const TYPE *y,             \
                                             TYPE *x_gradient, const float *scale, float low, float high) {            \
        FOR_VECTORS(, {                                                                                                \
            vector slope = unclamp(GET(gradient + i, n), GET(y + i, n), low, high);                                    \
            PUT(x_gradient + i, get(scale + c, n) * slope, n);                                                         \
        })                                                                                                             \
    }                                                                                                                  \
                                                                                                                       \
    /* x_gradient = scale slope, with the gradient `slope` of the input of the clamp whose output is y */              \
    void scale_gradient_##SUFFIX(long parts, long count, long period, const TYPE *gradient, const TYPE *y,             \
                                 TYPE *x_gradient, const float *scale, float low, float high) {                        \
        FOR_PARTS_OF_IMAGE({                                                                                           \
            scale_gradient_part_##SUFFIX(length, period, gradient + first, y + first, x_gradient + first, scale, low,  \
                                         high);                                                                        \
        })                                                                                                             \
    }

DEFINE(float, get_fp32, put_fp32, fp32)
DEFINE(bfloat16, get_bf16, put_bf16, bf16)
