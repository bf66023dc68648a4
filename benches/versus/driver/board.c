#include "board.h"

#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static void relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

struct board *board_open(const char *folder) {
  char path[4096];
  snprintf(path, sizeof path, "%s/board", folder);
  int file = open(path, O_RDWR);
  if (file < 0) return NULL;
  void *memory = mmap(NULL, sizeof(struct board), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  return memory == MAP_FAILED ? NULL : memory;
}

bool barrier_wait(struct barrier *barrier, int size, bool crowded, const atomic_bool *failed) {
  unsigned generation = atomic_load(&barrier->generation);
  if (atomic_fetch_add(&barrier->arrived, 1) + 1 == (unsigned)size) {
    atomic_store(&barrier->arrived, 0);
    atomic_store(&barrier->generation, generation + 1);
  }
  for (unsigned spins = 0; atomic_load(&barrier->generation) == generation; spins++) {
    if (atomic_load(failed)) return false;
    /* A rank per core need not yield, unless somebody else has its peer's core. */
    if (crowded || spins > 100000)
      sched_yield();
    else
      relax();
  }
  return !atomic_load(failed);
}

bool board_barrier(struct board *board, int size, bool crowded) {
  return barrier_wait(&board->barrier, size, crowded, &board->failed);
}

double board_line(struct board *board, int rank, int first, int last) {
  enum { WARM = 500, TRIPS = 5000 };
  static unsigned trip; /* goes on where the last call ended, on both sides */
  double begin = 0;
  for (unsigned done = 0; done < WARM + TRIPS; done++) {
    trip++;
    if (done == WARM) begin = seconds_now();
    if (rank == first) {
      atomic_store_explicit(&board->ping, trip, memory_order_release);
      while (atomic_load_explicit(&board->pong, memory_order_acquire) != trip) relax();
    } else if (rank == last) {
      while (atomic_load_explicit(&board->ping, memory_order_acquire) != trip) relax();
      atomic_store_explicit(&board->pong, trip, memory_order_release);
    }
  }
  return (seconds_now() - begin) / TRIPS * 1e9;
}
