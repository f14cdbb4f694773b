// Arrays of a safetensors file where they lie: the counterpart of formats/tensors.py.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>

#include "fields.hpp"
#include "json.hpp"

namespace openwork {

// An array of the file; those of types that no step reads have no `type`.
struct Stored {
  std::string type;  // as safetensors calls it
  std::span<const uint8_t> bytes;
  size_t size;  // elements
};

// Throws std::invalid_argument for a header that lies: arrays must fill the data without holes or overlaps, in the sizes that
// their shapes and types have.
std::map<std::string, Stored, std::less<>> stored_arrays(const Json& header, std::span<const uint8_t> data);

// The array as a step takes it; throws std::invalid_argument if its type is none of a step's.
Array step_array(const Stored& stored, const std::shared_ptr<const void>& owner);

// An array of whole numbers that are packed, `how` {"bits", "shape"}: `bits` for each, the lowest first, in two's complement. Throws
// std::invalid_argument if the array does not hold as many.
Array unpacked(const Array& packed, const Json& how);

}  // namespace openwork
