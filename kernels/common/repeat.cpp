// Steps that repeat, where ops are done as they are called: nothing is recorded and a fetch is done when it begins.
#include "graft.h"
#include "status.h"

extern "C" int32_t graft_record_begin(void) {
  return graft::fail(GRAFT_UNSUPPORTED, "Cannot record: this library does every op as it is called");
}
extern "C" void* graft_record_end(void) {
  graft_record_begin();
  return nullptr;
}
extern "C" int32_t graft_replay(const void*) { return graft_record_begin(); }
extern "C" void graft_recording_free(void*) {}

extern "C" int32_t graft_download_begin(void* dst_host, const void* src, uint64_t bytes, int32_t ticket) {
  GRAFT_CHECK(ticket >= 0 && ticket < GRAFT_TICKETS, "Cannot fetch: ticket is %d, expected 0 to %d", ticket,
              GRAFT_TICKETS - 1);
  return graft_download(dst_host, src, bytes);
}
extern "C" int32_t graft_download_wait(int32_t ticket) {
  GRAFT_CHECK(ticket >= 0 && ticket < GRAFT_TICKETS, "Cannot wait: ticket is %d, expected 0 to %d", ticket,
              GRAFT_TICKETS - 1);
  return GRAFT_OK;
}

extern "C" int32_t graft_advance(int32_t* ids, int32_t* positions, graft_sampling* params, const int32_t* drawn,
                                 int32_t N, int32_t M) {
  GRAFT_CHECK(ids && positions && params && drawn, "Cannot advance: a pointer is null");
  GRAFT_CHECK(N > 0 && M > 0, "Cannot advance: N = %d, M = %d, expected positive sizes", N, M);
  for (int32_t i = 0; i < N; i++) {
    ids[i] = drawn[i] > 0 ? drawn[i] : 0;
    params[i].position++;
  }
  for (int32_t j = 0; j < M; j++) positions[j]++;
  return GRAFT_OK;
}

extern "C" int32_t graft_put(int32_t* table, const int32_t* entries, int32_t n, int32_t size) {
  GRAFT_CHECK(table && entries, "Cannot put: a pointer is null");
  GRAFT_CHECK(n > 0 && size > 0, "Cannot put: n = %d, size = %d, expected positive sizes", n, size);
  for (int32_t i = 0; i < n; i++) {
    const int32_t place = entries[2 * i];
    GRAFT_CHECK(place >= 0 && place < size, "put: row %d names %d, expected 0 to %d", i, place, size - 1);
    table[place] = entries[2 * i + 1];
  }
  return GRAFT_OK;
}
