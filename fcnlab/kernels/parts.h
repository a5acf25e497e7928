/* Division of a loop into `parts`, which run in the OpenMP threads of PyTorch; without OpenMP in one thread. */

#pragma once

/* Run the following block for each `part` of `parts`. */
#define FOR_PARTS                                                                                                      \
    _Pragma("omp parallel for schedule(static, 1) num_threads(parts) if (parts > 1)")                                  \
    for (long part = 0; part < parts; part++)

typedef struct {
    long first, count;
} Part;

/* Return the rows of a part, where `rows` are divided evenly. */
static inline Part get_part(long rows, long part, long parts) {
    long first = rows * part / parts;
    return (Part){first, rows * (part + 1) / parts - first};
}
