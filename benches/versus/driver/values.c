#include "values.h"

#include <string.h>

const size_t dtype_bytes[DTYPES] = {[F32] = 4, [F16] = 2, [BF16] = 2, [F8E4M3] = 1};

uint32_t encode(enum dtype dtype, unsigned number) {
  float wide = (float)number;
  uint32_t bits;
  memcpy(&bits, &wide, sizeof bits);
  /* f32: 8 bits of exponent, biased by 127, above 23 of mantissa. */
  uint32_t exponent = bits >> 23, mantissa = bits & 0x7fffff;
  switch (dtype) {
    case BF16: return (bits >> 16) * 0x10001u;
    case F16: return number == 0 ? 0 : (((exponent - 127 + 15) << 10) | (mantissa >> 13)) * 0x10001u;
    case F8E4M3: return number == 0 ? 0 : (((exponent - 127 + 7) << 3) | (mantissa >> 20)) * 0x1010101u;
    default: return bits;
  }
}
