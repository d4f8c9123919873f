// Which memory counts as the device's.
#pragma once
#include <cstddef>

namespace simt {
void add_allocation(void* p, size_t bytes);
/// Its bytes.
size_t remove_allocation(void* p);
}  // namespace simt
