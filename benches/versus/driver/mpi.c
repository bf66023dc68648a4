/* Any MPI. */
#include "adaptor.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

static int status;

static int start(int rank, int size, void *scratch, size_t scratch_bytes) {
  (void)scratch, (void)scratch_bytes;
  status = MPI_Init(NULL, NULL);
  if (status != MPI_SUCCESS) return 1;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int real_rank, real_size;
  MPI_Comm_rank(MPI_COMM_WORLD, &real_rank);
  MPI_Comm_size(MPI_COMM_WORLD, &real_size);
  if (real_rank == rank && real_size == size) return 0;
  status = MPI_ERR_OTHER;
  return 1;
}

static int finish(void) { return (status = MPI_Finalize()) != MPI_SUCCESS; }

static const char *error(void) {
  static char text[MPI_MAX_ERROR_STRING];
  int length;
  MPI_Error_string(status, text, &length);
  return text;
}

/* The first line of what the library says of itself, at most. */
static const char *version(void) {
  static char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length;
  MPI_Get_library_version(text, &length);
  for (char *at = text; *at != '\0'; at++) {
    if (*at == '\t' || *at == '"' || *at == '\\') *at = ' ';
    if (*at == '\n' || *at == ',') *at = '\0';
    if (*at == '\0') break;
  }
  return text;
}

static int all_reduce(const struct call *c) {
  return (status = MPI_Allreduce(c->input, c->output, (int)c->count, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD)) !=
         0;
}

static int all_gather(const struct call *c) {
  return (status = MPI_Allgather(c->input, (int)c->count, MPI_FLOAT, c->output, (int)c->count, MPI_FLOAT,
                                 MPI_COMM_WORLD)) != 0;
}

static int reduce_scatter(const struct call *c) {
  return (status = MPI_Reduce_scatter_block(c->input, c->output, (int)c->count, MPI_FLOAT, MPI_SUM,
                                            MPI_COMM_WORLD)) != 0;
}

static int broadcast(const struct call *c) {
  return (status = MPI_Bcast(c->output, (int)c->count, MPI_FLOAT, 0, MPI_COMM_WORLD)) != 0;
}

const struct adaptor adaptor = {
    .start = start,
    .finish = finish,
    .error = error,
    .version = version,
    .operations = {all_reduce, all_gather, reduce_scatter, broadcast},
};
