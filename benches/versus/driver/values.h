/* What buffers hold: small whole numbers, exact in every type and in every order of summation. A buffer is
 * treated as 32-bit words, each of one, two or four equal elements, so that one loop serves all types. */
#ifndef VALUES_H
#define VALUES_H

#include "adaptor.h"

#include <stdbool.h>

/* Element sizes in bytes, by dtype. */
extern const size_t dtype_bytes[DTYPES];

/* The number that `rank` holds at word `word` in operation `turn`. */
static inline unsigned value(enum dtype dtype, unsigned rank, unsigned turn, size_t word) {
  /* The 8-bit float is exact up to 16 only: 8 ranks. */
  if (dtype == F8E4M3) return 1 + ((turn + (unsigned)word) & 1);
  return (rank * 3 + turn * 5 + (unsigned)word * 7) & 15;
}

/* The turns after which values repeat. */
enum { TURNS = 16 };

/* The largest sum there is, of 16 ranks; bf16 is exact up to 256. */
enum { LARGEST = 15 * 16 };

/* The word of elements that are all `number`. */
uint32_t encode(enum dtype dtype, unsigned number);

#endif
