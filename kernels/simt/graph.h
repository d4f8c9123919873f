// Recording, as the runtime's own calls see it.
#pragma once
#include "simt.h"

namespace simt {
/// Spoils the recording under way, as a device's runtime does when a call cannot be recorded.
cudaError_t refuse_recording();
}  // namespace simt
