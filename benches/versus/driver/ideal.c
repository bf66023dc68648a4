/* No library, but a yardstick: one fused pass over shared buffers by all ranks at once. Two barriers stand
 * around it, so that results are right; they are not counted (`uncounted`).
 *
 * VERSUS_IDEAL names the form:
 *
 *              own                                          shared
 *   all-reduce      each sums all inputs into its output    each sums its slice into all outputs
 *   all-gather      each copies all inputs                  each copies its input into all outputs
 *   reduce-scatter  each sums its block                     the same
 *   broadcast       each but the root copies                each copies its slice into all outputs
 *
 * and `plain` or `stream`: ordinary or non-temporal stores. */
#define _GNU_SOURCE
#include "adaptor.h"
#include "board.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

/* What is moved at once: a cache line. */
enum { LANES = 16 };
typedef float lanes __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* One allocation: a piece for each rank, `stride` bytes apart. */
struct region {
  char *start;
  size_t stride;
};

struct meeting {
  struct barrier barrier;
  atomic_bool failed;
  int pid, file; /* rank 0's memory, for the others to open */
};

static int rank, size;
static bool streaming, own, crowded;
static struct meeting *meeting;
static struct region regions[2];

static bool meet(void) { return barrier_wait(&meeting->barrier, size, crowded, &meeting->failed); }

static int start(int my_rank, int ranks, void *scratch, size_t scratch_bytes) {
  const char *form = getenv("VERSUS_IDEAL");
  if (form == NULL || sizeof(struct meeting) > scratch_bytes) return 1;
  rank = my_rank, size = ranks, meeting = scratch;
  streaming = strstr(form, "stream") != NULL;
  own = strstr(form, "own") != NULL;
  crowded = size > sysconf(_SC_NPROCESSORS_ONLN);
  return 0;
}

static int finish(void) { return 0; }
static const char *error(void) { return strerror(errno); }
static const char *version(void) { return "one pass"; }

static int allocate(size_t bytes, void **memory) {
  struct region *region = &regions[regions[0].start != NULL];
  region->stride = (bytes + 4095) / 4096 * 4096;
  size_t all = region->stride * (size_t)size;
  int file = -1;
  if (rank == 0) {
    file = memfd_create("ideal", MFD_CLOEXEC);
    if (file < 0 || ftruncate(file, (off_t)all) != 0) return 1;
    meeting->pid = getpid(), meeting->file = file;
  }
  if (!meet()) return 1;
  if (rank != 0) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/fd/%d", meeting->pid, meeting->file);
    file = open(path, O_RDWR | O_CLOEXEC);
    if (file < 0) return 1;
  }
  region->start = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (!meet()) return 1;
  close(file);
  if (region->start == MAP_FAILED) return 1;
  *memory = region->start + (size_t)rank * region->stride;
  return 0;
}

static int release(void *memory) {
  for (int at = 0; at < 2; at++) {
    struct region *region = &regions[at];
    if (region->start == NULL || region->start + (size_t)rank * region->stride != memory) continue;
    munmap(region->start, region->stride * (size_t)size);
    region->start = NULL;
  }
  return 0;
}

/* Rank `other`'s memory that corresponds to ours at `mine`. */
static float *at_rank(const void *mine, int other) {
  size_t all = regions[0].stride * (size_t)size;
  bool first = (const char *)mine >= regions[0].start && (const char *)mine < regions[0].start + all;
  ptrdiff_t stride = (ptrdiff_t)regions[first ? 0 : 1].stride;
  return (float *)((char *)mine + (other - rank) * stride);
}

static inline __attribute__((always_inline)) void put(float *to, lanes value, bool stream) {
#if defined(__AVX512F__)
  if (stream) {
    _mm512_stream_ps(to, (__m512)value);
    return;
  }
#elif defined(__SSE2__)
  if (stream) {
    for (int part = 0; part < LANES; part += 4)
      _mm_stream_ps(to + part, _mm_loadu_ps((const float *)&value + part));
    return;
  }
#else
  (void)stream;
#endif
  *(lanes *)to = value;
}

/* Sums `from` into all of `to`, elements first..last, which lie alike in each. */
static inline __attribute__((always_inline)) void pass_of(float *const *to, int tos, const float *const *from,
                                                          int froms, size_t first, size_t last, bool stream) {
  size_t at = first;
  while (at < last) {
    bool aligned = ((uintptr_t)(to[0] + at) & (sizeof(lanes) - 1)) == 0;
    if (aligned && last - at >= LANES) {
      for (; last - at >= LANES; at += LANES) {
        lanes sum = *(const lanes *)(from[0] + at);
        for (int source = 1; source < froms; source++) sum += *(const lanes *)(from[source] + at);
        for (int target = 0; target < tos; target++) put(to[target] + at, sum, stream);
      }
    } else {
      float sum = from[0][at];
      for (int source = 1; source < froms; source++) sum += from[source][at];
      for (int target = 0; target < tos; target++) to[target][at] = sum;
      at++;
    }
  }
#if defined(__SSE2__)
  if (stream) _mm_sfence();
#endif
}

/* The same, with the common numbers of sources and targets known to the compiler. */
static void pass(float *const *to, int tos, const float *const *from, int froms, size_t first, size_t last) {
  if (streaming) {
    if (tos == 1 && froms == 1)
      pass_of(to, 1, from, 1, first, last, true);
    else if (tos == 1 && froms == 2)
      pass_of(to, 1, from, 2, first, last, true);
    else if (tos == 2 && froms == 2)
      pass_of(to, 2, from, 2, first, last, true);
    else
      pass_of(to, tos, from, froms, first, last, true);
  } else {
    if (tos == 1 && froms == 1)
      pass_of(to, 1, from, 1, first, last, false);
    else if (tos == 1 && froms == 2)
      pass_of(to, 1, from, 2, first, last, false);
    else if (tos == 2 && froms == 2)
      pass_of(to, 2, from, 2, first, last, false);
    else
      pass_of(to, tos, from, froms, first, last, false);
  }
}

/* Where this rank's slice of `count` elements begins and ends: in whole lines. */
static void slice(size_t count, size_t *first, size_t *last) {
  size_t lines = (count + LANES - 1) / LANES;
  *first = lines * (size_t)rank / (size_t)size * LANES;
  *last = lines * (size_t)(rank + 1) / (size_t)size * LANES;
  if (*first > count) *first = count;
  if (*last > count) *last = count;
}

/* Everybody's memory that corresponds to ours at `mine`. */
static void everybody(const void *mine, float **found) {
  for (int other = 0; other < size; other++) found[other] = at_rank(mine, other);
}

static int all_reduce(const struct call *c) {
  float *to[MOST_RANKS], *from[MOST_RANKS], *mine = c->output;
  size_t first = 0, last = c->count;
  if (!meet()) return 1;
  everybody(c->input, from);
  everybody(c->output, to);
  if (!own) slice(c->count, &first, &last);
  pass(own ? &mine : to, own ? 1 : size, (const float *const *)from, size, first, last);
  return !meet();
}

static int all_gather(const struct call *c) {
  float *to[MOST_RANKS], *from[MOST_RANKS];
  if (!meet()) return 1;
  everybody(c->input, from);
  everybody((const float *)c->output + (size_t)rank * c->count, to);
  if (own) {
    for (int step = 0; step < size; step++) {
      int other = (rank + step) % size;
      float *block = (float *)c->output + (size_t)other * c->count;
      pass(&block, 1, (const float *const *)&from[other], 1, 0, c->count);
    }
  } else {
    pass(to, size, (const float *const *)&from[rank], 1, 0, c->count);
  }
  return !meet();
}

static int reduce_scatter(const struct call *c) {
  float *from[MOST_RANKS], *mine = c->output;
  if (!meet()) return 1;
  everybody((const float *)c->input + (size_t)rank * c->count, from);
  pass(&mine, 1, (const float *const *)from, size, 0, c->count);
  return !meet();
}

static int broadcast(const struct call *c) {
  float *everyone[MOST_RANKS], *mine = c->output;
  size_t first = 0, last = c->count;
  if (!meet()) return 1;
  everybody(c->output, everyone);
  if (!own) slice(c->count, &first, &last);
  if (!own)
    pass(&everyone[1], size - 1, (const float *const *)everyone, 1, first, last);
  else if (rank != 0)
    pass(&mine, 1, (const float *const *)everyone, 1, first, last);
  return !meet();
}

static int uncounted(const struct call *call) {
  (void)call;
  return !(meet() && meet());
}

const struct adaptor adaptor = {
    .start = start,
    .finish = finish,
    .error = error,
    .version = version,
    .operations = {all_reduce, all_gather, reduce_scatter, broadcast},
    .uncounted = uncounted,
    .allocate = allocate,
    .release = release,
};
