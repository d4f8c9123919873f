// Which memory counts as the device's, and who wrote into it.
#pragma once
#include <cstddef>
#include <cstdint>

namespace simt {

/// Memory that kernels may touch from now on; `pinned`: host memory, which asynchronous copies read and write late.
void add_allocation(void* p, size_t bytes, bool pinned);
/// Its bytes.
size_t remove_allocation(void* p);
/// Whether p lies in pinned host memory.
bool is_pinned(const void* p);

/// Whether these bytes lie in one allocation.
bool is_device(const void* p, size_t bytes);

/// Checks an access of the running thread against the allocations, what other blocks wrote and what kernels that may
/// still run wrote. False where p lies in no allocation.
bool check_global(uintptr_t p, size_t bytes, bool write);

}  // namespace simt
