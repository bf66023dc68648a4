/* Every rank gives its number; every rank gets the sum of all.
 *
 *   cc all_reduce.c $(pkg-config --cflags --libs kolo) -o all_reduce
 *   kolo run -n 4 -- ./all_reduce
 */
#include <kolo.h>
#include <stdio.h>
#include <stdlib.h>

static void check(enum kolo_status status) {
  if (status != KOLO_OK) {
    fprintf(stderr, "%s\n", kolo_last_error());
    exit(EXIT_FAILURE);
  }
}

int main(void) {
  enum { COUNT = 1000 };
  struct kolo_comm *comm;
  check(kolo_init(&comm));
  int rank = kolo_rank(comm), size = kolo_size(comm);

  void *memory;
  check(kolo_alloc(comm, COUNT * sizeof(float), &memory));
  float *data = memory;
  for (int i = 0; i < COUNT; i++) data[i] = (float)(rank + i);

  check(kolo_all_reduce(comm, data, data, COUNT, KOLO_F32, KOLO_SUM)); /* in place */

  int wrong = 0;
  for (int i = 0; i < COUNT; i++) wrong += data[i] != (float)(size * (size - 1) / 2 + size * i);
  printf("rank %d of %d: %d of %d wrong\n", rank, size, wrong, COUNT);

  check(kolo_free(comm, memory));
  check(kolo_finalize(comm));
  return wrong ? EXIT_FAILURE : EXIT_SUCCESS;
}
