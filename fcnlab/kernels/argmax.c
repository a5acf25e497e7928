/* The class with the greatest score of each pixel; called by fcnlab/kernels/argmax.py.
 *
 * LANES pixels are processed at a time. As in PyTorch, the first of equal scores wins, and nan is greater than all. */

#include "parts.h"
#include "vectors.h"

typedef uint8_t bytes __attribute__((vector_size(LANES)));

#define DEFINE(TYPE, READ, NAME)                                                                                       \
    INLINE bytes NAME##_lanes(const TYPE *z, long row, long classes) {                                                 \
        vector top = READ(z);                                                                                          \
        integers best = {0};                                                                                           \
        for (long c = 1; c < classes; c++) {                                                                           \
            vector score = READ(z + c * row);                                                                          \
            integers greater = (score > top) | ((score != score) & (top == top));                                      \
            top = where(greater, score, top);                                                                          \
            best = (greater & (int32_t)c) | (~greater & best);                                                         \
        }                                                                                                              \
        return __builtin_convertvector(best, bytes);                                                                   \
    }                                                                                                                  \
                                                                                                                       \
    static void NAME##_rows(const TYPE *z, long n, long step, long row, long classes, long pixels,                     \
                            uint8_t *predicted) {                                                                      \
        TYPE rest[MAX_CLASSES * LANES] = {0};                                                                          \
        long whole = pixels / LANES * LANES, left = pixels - whole;                                                    \
        for (long i = 0; i < n; i++, z += step, predicted += pixels) {                                                 \
            for (long t = 0; t < whole; t += LANES) {                                                                  \
                bytes found = NAME##_lanes(z + t, row, classes);                                                       \
                memcpy(predicted + t, &found, LANES);                                                                  \
            }                                                                                                          \
            if (left == 0) continue;                                                                                   \
            for (long c = 0; c < classes; c++) memcpy(rest + c * LANES, z + c * row + whole, left * sizeof(TYPE));     \
            bytes found = NAME##_lanes(rest, LANES, classes);                                                          \
            memcpy(predicted + whole, &found, left);                                                                   \
        }                                                                                                              \
    }                                                                                                                  \
                                                                                                                       \
    /* Process n rows of `pixels` pixels with strides of `step` elements for rows and `row` for classes. */            \
    void NAME(const TYPE *z, long n, long step, long row, long classes, long pixels, uint8_t *predicted,               \
              long parts) {                                                                                            \
        FOR_PARTS {                                                                                                    \
            Part rows = get_part(n, part, parts);                                                                      \
            NAME##_rows(z + rows.first * step, rows.count, step, row, classes, pixels,                                 \
                        predicted + rows.first * pixels);                                                              \
        }                                                                                                              \
    }

DEFINE(float, read_fp32, argmax_fp32)
DEFINE(bfloat16, read_bf16, argmax_bf16)
