/* kolo: collective communication for ranks on any machine. Generated from kolo's ffi/src by cbindgen.
 *
 * Functions return KOLO_OK, or another status: then kolo_last_error() is one line about it. After any status
 * but KOLO_USAGE the communicator is failed, and each later call on it fails alike. One thread at a time uses
 * a communicator, kolo_abort aside, and nobody else touches the memory of a call before it returns. Counts are
 * in elements; memory is aligned as its type is, and may be null where it has no elements. */

#ifndef KOLO_H
#define KOLO_H

#include <stdint.h>

// How a call ended. Everything but KOLO_OK leaves a line for kolo_last_error.
enum kolo_status {
  // Well.
  KOLO_OK = 0,
  // The caller broke a rule that this rank alone can see; the communicator stays usable.
  KOLO_USAGE = 1,
  // Two ranks called differently: another collective, count, type, operator or root.
  KOLO_MISMATCH = 2,
  // The deadline passed while this rank waited for others.
  KOLO_DEADLINE = 3,
  // A rank died, or left after an error of its own.
  KOLO_PEER_LOST = 4,
  // Somebody aborted the communicator.
  KOLO_ABORTED = 5,
  // A connection was refused: a wrong secret, a wrong version, a stranger.
  KOLO_REFUSED = 6,
  // The operating system said no.
  KOLO_SYSTEM = 7,
  // A defect of kolo itself; the communicator is aborted.
  KOLO_INTERNAL = 8,
};

// The type of elements.
enum kolo_dtype {
  // double
  KOLO_F64 = 0,
  // float
  KOLO_F32 = 1,
  // IEEE 754 half precision, 2 bytes
  KOLO_F16 = 2,
  // The upper half of a float, 2 bytes
  KOLO_BF16 = 3,
  // OCP 8-bit float: 4 exponent, 3 mantissa bits, no infinities
  KOLO_F8E4M3 = 4,
  // OCP 8-bit float: 5 exponent, 2 mantissa bits
  KOLO_F8E5M2 = 5,
  // int8_t
  KOLO_I8 = 6,
  // int16_t
  KOLO_I16 = 7,
  // int32_t
  KOLO_I32 = 8,
  // int64_t
  KOLO_I64 = 9,
  // uint8_t
  KOLO_U8 = 10,
  // uint16_t
  KOLO_U16 = 11,
  // uint32_t
  KOLO_U32 = 12,
  // uint64_t
  KOLO_U64 = 13,
};

// How a reduction combines elements. Integers wrap; the least and the greatest of floats are NaN where any
// input is; F16, BF16 and the 8-bit floats are combined in float, the latter saturate.
enum kolo_op {
  // a + b
  KOLO_SUM = 0,
  // a * b
  KOLO_PROD = 1,
  // The smaller
  KOLO_MIN = 2,
  // The larger
  KOLO_MAX = 3,
  // The sum over the number of ranks; of integers rounded toward zero
  KOLO_AVERAGE = 4,
  // a & b; integers only
  KOLO_AND = 6,
  // a | b; integers only
  KOLO_OR = 7,
  // a ^ b; integers only
  KOLO_XOR = 8,
};

// A group of ranks that call collectives together, in the same order. Used by one thread at a time;
// kolo_abort alone may be called by any.
struct kolo_comm;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// output = the reduction of all ranks' input, on every rank: `count` elements.
// In place: output is input.
enum kolo_status kolo_all_reduce(struct kolo_comm *comm,
                                 const void *input,
                                 void *output,
                                 uint64_t count,
                                 enum kolo_dtype dtype,
                                 enum kolo_op op);

// output = this rank's block of the reduction of all ranks' input. A block is `count` elements; input has one
// for each rank. In place: output is this rank's block of input; the other blocks are used up.
enum kolo_status kolo_reduce_scatter(struct kolo_comm *comm,
                                     const void *input,
                                     void *output,
                                     uint64_t count,
                                     enum kolo_dtype dtype,
                                     enum kolo_op op);

// Like kolo_reduce_scatter, with a block of counts[r] elements for rank r; never in place.
enum kolo_status kolo_reduce_scatter_v(struct kolo_comm *comm,
                                       const void *input,
                                       void *output,
                                       const uint64_t *counts,
                                       enum kolo_dtype dtype,
                                       enum kolo_op op);

// output = every rank's input, in the order of ranks. A block is `count` elements; output has one for each
// rank. In place: input is this rank's block of output.
enum kolo_status kolo_all_gather(struct kolo_comm *comm,
                                 const void *input,
                                 void *output,
                                 uint64_t count,
                                 enum kolo_dtype dtype);

// Like kolo_all_gather, with a block of counts[r] elements from rank r; never in place.
enum kolo_status kolo_all_gather_v(struct kolo_comm *comm,
                                   const void *input,
                                   void *output,
                                   const uint64_t *counts,
                                   enum kolo_dtype dtype);

// Every rank's data becomes the root's: `count` elements.
enum kolo_status kolo_broadcast(struct kolo_comm *comm,
                                void *data,
                                uint64_t count,
                                enum kolo_dtype dtype,
                                int32_t root);

// The root's output = the reduction of all ranks' input: `count` elements. Elsewhere output is not used and may
// be null. In place: output is input.
enum kolo_status kolo_reduce(struct kolo_comm *comm,
                             const void *input,
                             void *output,
                             uint64_t count,
                             enum kolo_dtype dtype,
                             enum kolo_op op,
                             int32_t root);

// The root's output = every rank's input, in the order of ranks. A block is `count` elements; output has one for
// each rank. Elsewhere output is not used and may be null.
enum kolo_status kolo_gather(struct kolo_comm *comm,
                             const void *input,
                             void *output,
                             uint64_t count,
                             enum kolo_dtype dtype,
                             int32_t root);

// Like kolo_gather, with `count` elements from this rank and counts[r] from rank r. Elsewhere than at the root
// neither output nor counts are used, and both may be null.
enum kolo_status kolo_gather_v(struct kolo_comm *comm,
                               const void *input,
                               uint64_t count,
                               void *output,
                               const uint64_t *counts,
                               enum kolo_dtype dtype,
                               int32_t root);

// Each rank's output = its block of the root's input. A block is `count` elements; input has one for each rank.
// Elsewhere input is not used and may be null.
enum kolo_status kolo_scatter(struct kolo_comm *comm,
                              const void *input,
                              void *output,
                              uint64_t count,
                              enum kolo_dtype dtype,
                              int32_t root);

// Like kolo_scatter, with `count` elements for this rank and counts[r] for rank r. Elsewhere than at the root
// neither input nor counts are used, and both may be null.
enum kolo_status kolo_scatter_v(struct kolo_comm *comm,
                                const void *input,
                                const uint64_t *counts,
                                void *output,
                                uint64_t count,
                                enum kolo_dtype dtype,
                                int32_t root);

// Block b of rank r's output = block r of rank b's input. A block is `count` elements; both have one for each
// rank.
enum kolo_status kolo_all_to_all(struct kolo_comm *comm,
                                 const void *input,
                                 void *output,
                                 uint64_t count,
                                 enum kolo_dtype dtype);

// Like kolo_all_to_all, with send_counts[r] elements for rank r and recv_counts[r] from it.
enum kolo_status kolo_all_to_all_v(struct kolo_comm *comm,
                                   const void *input,
                                   const uint64_t *send_counts,
                                   void *output,
                                   const uint64_t *recv_counts,
                                   enum kolo_dtype dtype);

// Returns when all ranks have called it.
enum kolo_status kolo_barrier(struct kolo_comm *comm);

// Joins the job that a launcher offers in the environment (kolo run, Open MPI's mpirun, PMI, or KOLO_RANK,
// KOLO_SIZE and KOLO_RENDEZVOUS by hand); without one, a job of one rank. Stores the communicator of all its
// ranks in *comm. With KOLO_JOIN=1 this process is a newcomer: it waits until the job calls kolo_grow.
enum kolo_status kolo_init(struct kolo_comm **comm);

// Ends a communicator and frees it with the memory of its kolo_alloc. Null is fine.
enum kolo_status kolo_finalize(struct kolo_comm *comm);

// This rank, from 0; -1 where comm is null.
int32_t kolo_rank(const struct kolo_comm *comm);

// How many ranks there are; -1 where comm is null.
int32_t kolo_size(const struct kolo_comm *comm);

// How often the job had grown when this communicator's ranks met: 0 for those that started together; -1 where comm is
// null. A newcomer sees by it that the others have to tell it how far they are.
int32_t kolo_generation(const struct kolo_comm *comm);

// Ranks that pass the same color (0 or more) form a new communicator, ordered by key and then by rank, which
// is stored in *part; a rank that passes a negative color joins none, and gets null. All ranks call it.
enum kolo_status kolo_split(struct kolo_comm *comm, int32_t color, uint64_t key, struct kolo_comm **part);

// Stores a communicator of those ranks that are left of this one in *left: after KOLO_PEER_LOST the way to go on.
// All that are left call it; this communicator is failed from then on, and still to be finalized. KOLO_DEADLINE names
// ranks that live and have not called it.
enum kolo_status kolo_shrink(struct kolo_comm *comm,
                             struct kolo_comm **left);

// Stores a communicator of these ranks and so many newcomers in *grown: processes whose kolo_init waits with KOLO_JOIN=1
// where KOLO_RENDEZVOUS says. All ranks call it. They keep their order and come first. All get one, or none does and
// this communicator is as it was: KOLO_DEADLINE says that too few came, KOLO_PEER_LOST that somebody left meanwhile.
enum kolo_status kolo_grow(struct kolo_comm *comm,
                           int32_t newcomers,
                           struct kolo_comm **grown);

// Aborts from any thread: calls on this rank, blocked or to come, return KOLO_ABORTED; the other ranks learn
// that this one has left.
enum kolo_status kolo_abort(const struct kolo_comm *comm);

// Zeroed memory for `bytes` bytes, aligned to 64, which collectives on this communicator move best: two processes
// of a host that reduce it in place, whole or from any address in it on, work in each other's without a copy.
// Stores its address in *memory. All ranks call it, with the same number of bytes.
enum kolo_status kolo_alloc(struct kolo_comm *comm,
                            uint64_t bytes,
                            void **memory);

// Frees memory of kolo_alloc. Null is fine.
enum kolo_status kolo_free(struct kolo_comm *comm, void *memory);

// Sends `count` elements to rank `to`, which receives as many of the same type. May wait until it does.
enum kolo_status kolo_send(struct kolo_comm *comm,
                           const void *data,
                           uint64_t count,
                           enum kolo_dtype dtype,
                           int32_t to);

// Receives `count` elements from rank `from`, which sends as many of the same type.
enum kolo_status kolo_recv(struct kolo_comm *comm,
                           void *data,
                           uint64_t count,
                           enum kolo_dtype dtype,
                           int32_t from);

// Sends `count` elements to rank `to` and receives `into_count` from rank `from`, at once, so that neighbours
// which exchange cannot block each other. `data` and `into` are apart.
enum kolo_status kolo_send_recv(struct kolo_comm *comm,
                                const void *data,
                                uint64_t count,
                                int32_t to,
                                void *into,
                                uint64_t into_count,
                                int32_t from,
                                enum kolo_dtype dtype);

// One line about the last call of this thread that did not return KOLO_OK; empty if there was none. It
// stays readable until the next such call of this thread. Never null.
const char *kolo_last_error(void);

// The version of the library, such as "0.1.0".
const char *kolo_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* KOLO_H */
