// oneCCL, by its C++ interface. The ranks meet through a key-value store whose address rank 0 leaves on the
// board.
#include "adaptor.h"

#include <atomic>
#include <chrono>
#include <cstring>
#include <exception>
#include <memory>
#include <oneapi/ccl.hpp>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

// Ended by hand: their destructors must not run behind the library's own.
ccl::communicator *communicator;
ccl::shared_ptr_class<ccl::kvs> store;
std::string failure;

// Runs what may throw; 1 where it does.
template <typename Work> int guarded(const Work &work) {
  try {
    work();
    return 0;
  } catch (const std::exception &error) {
    failure = error.what();
    return 1;
  }
}

int start(int rank, int size, void *scratch, size_t scratch_bytes) {
  return guarded([=] {
    using address = ccl::kvs::address_type;
    struct notice {
      std::atomic<bool> written;
      address where;
    };
    if (sizeof(notice) > scratch_bytes) throw std::runtime_error("no room for the store's address");
    auto *board = static_cast<notice *>(scratch);
    ccl::init();
    if (rank == 0) {
      store = ccl::create_main_kvs();
      board->where = store->get_address();
      board->written = true;
    } else {
      while (!board->written) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      store = ccl::create_kvs(board->where);
    }
    communicator = new ccl::communicator(ccl::create_communicator(size, rank, store));
  });
}

int finish() {
  return guarded([] {
    ccl::barrier(*communicator).wait();
    delete communicator;
    store.reset();
  });
}

const char *error() { return failure.c_str(); }

const char *version() {
  static const ccl::library_version version = ccl::get_library_version();
  static const std::string text = "oneCCL " + std::string(version.full);
  return text.c_str();
}

int all_reduce(const struct call *c) {
  return guarded([=] {
    ccl::allreduce(c->input, c->output, c->count, ccl::datatype::float32, ccl::reduction::sum, *communicator)
        .wait();
  });
}

int all_gather(const struct call *c) {
  return guarded(
      [=] { ccl::allgather(c->input, c->output, c->count, ccl::datatype::float32, *communicator).wait(); });
}

int reduce_scatter(const struct call *c) {
  return guarded([=] {
    ccl::reduce_scatter(c->input, c->output, c->count, ccl::datatype::float32, ccl::reduction::sum,
                        *communicator)
        .wait();
  });
}

int broadcast(const struct call *c) {
  return guarded(
      [=] { ccl::broadcast(c->output, c->count, ccl::datatype::float32, 0, *communicator).wait(); });
}

} // namespace

extern "C" const struct adaptor adaptor = {
    start,   finish,  error,  version, {all_reduce, all_gather, reduce_scatter, broadcast},
    nullptr, nullptr, nullptr};
