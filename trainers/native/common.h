/* What the kernels share. They are compiled twice, for float and, with -DDOUBLE, for double. */
#ifndef SPIKEBENCH_COMMON_H
#define SPIKEBENCH_COMMON_H

#include <stdint.h>

#ifdef DOUBLE
typedef double real;
#else
typedef float real;
#endif

#define CHUNK 256 /* what a thread works on at a time: it and its membranes stay in the first cache */

extern int omp_get_thread_num(void);
extern int omp_get_num_threads(void);

/* The blocks of one thread. There may be fewer threads than were asked for. */
static inline void share(int64_t blocks, int64_t *first, int64_t *end) {
    const int64_t me = omp_get_thread_num(), threads = omp_get_num_threads();
    *first = blocks * me / threads;
    *end = blocks * (me + 1) / threads;
}

#endif
