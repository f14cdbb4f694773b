// The Python face: typed step constructors, NumPy in and out. Everything is checked in C++; a ValueError says what is wrong.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "cpu.hpp"
#include "gather_groups.hpp"
#include "program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace openwork {
namespace {

using Buffer = nb::ndarray<float, nb::c_contig, nb::device::cpu>;
using AnyArray = nb::ndarray<nb::ro, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A NumPy array as the library holds it: referred to, not copied, and let go under the interpreter's lock.
Array held(const AnyArray& array) {
  struct Owner {
    AnyArray array;
    ~Owner() {
      nb::gil_scoped_acquire lock;
      array = AnyArray();
    }
  };
  const nb::dlpack::dtype type = array.dtype();
  const auto owner = std::make_shared<Owner>(Owner{array});
  for (const auto& [known, id] : {std::pair{nb::dtype<float>(), Type::f32}, {nb::dtype<int32_t>(), Type::i32}, {nb::dtype<uint16_t>(), Type::u16}, {nb::dtype<uint8_t>(), Type::u8}, {nb::dtype<int8_t>(), Type::i8}})
    if (type == known) return {id, array.data(), array.size(), owner};
  throw std::invalid_argument("an array's type is none of float32, int32, uint16, uint8, int8");
}

// Pointers to the external buffers, checked against the sizes the program was built with.
std::vector<float*> checked_pointers(const Program& program, const std::vector<Buffer>& buffers) {
  require(buffers.size() == program.externals().size(), "every external buffer must be given");
  std::vector<float*> pointers;
  for (size_t i = 0; i < buffers.size(); i++) {
    require(static_cast<int64_t>(buffers[i].size()) == program.externals()[i], "an external buffer has the wrong size");
    pointers.push_back(buffers[i].data());
  }
  return pointers;
}

template <typename T>
using Ranked = nb::ndarray<const T, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<int64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <typename T>
void checked_groups(const Ranked<T>& ranked, int64_t banks, int64_t per_row, int64_t budget, const Counts& taken) {
  const auto bundles = static_cast<int64_t>(ranked.shape(0)), lists = static_cast<int64_t>(ranked.shape(1)), ranks = static_cast<int64_t>(ranked.shape(2));
  require(banks > 0 && per_row > 0 && lists > 0 && lists % banks == 0, "there must be a list of weights for each row and bank");
  require(taken.shape(0) == ranked.shape(0) && taken.shape(1) == ranked.shape(1), "there must be a count for each list");
  nb::gil_scoped_release release;
  take_groups(ranked.data(), bundles, lists, ranks, banks, per_row, budget, taken.data());
}

}  // namespace
}  // namespace openwork

NB_MODULE(_native, m) {
  using namespace openwork;
  // what torch.compile keeps until the process ends is no leak, and a report of it would be people's last line of output
  nb::set_leak_warnings(false);
  m.doc() = "Openwork's native engine: kernels, program interpreter, thread pool.";

  m.def("isas", [] {
    std::vector<std::string> names;
    for (const Kernels* k : available_kernels()) names.emplace_back(k->name);
    return names;
  }, "Instruction sets that run here, best first; 'reference' is the naive one.");
  m.def("cpu_features", [] { return cpu_features(); }, "Extensions of the CPU's instruction set, by Linux's names.");
  m.def("lanes", [](const std::string& isa) { return kernels_named(isa).lanes; }, "isa"_a, "Floats in a vector of an instruction set.");
  m.def("widest_tile", [](const std::string& isa, int mb) { return widest_tile(kernels_named(isa), mb); }, "isa"_a, "mb"_a,
        "Vectors of positions in the widest register block of mb rows.");
  m.def("widest_quad_tile", [](const std::string& isa, int mb) { return widest_quad_tile(kernels_named(isa), mb); }, "isa"_a, "mb"_a,
        "The same for taps of 8 bits.");
  m.def("multiplies_matrices", [](const std::string& isa) { return multiplies_matrices(kernels_named(isa)); }, "isa"_a,
        "Whether blocks of 16 rows of 8 bits are tiles that the CPU multiplies as matrices; elsewhere they are slower than smaller ones.");
  m.def("dense_fits", [](const std::string& isa, int width, int rows, int columns) {
    return dense_fits(kernels_named(isa), width, rows, columns);
  }, "isa"_a, "width"_a, "rows"_a, "columns"_a, "Whether a tile of rows x columns pixels x width outputs fits into the registers.");
  m.def("activate", [](const std::string& isa, const std::string& name, const std::vector<float>& parameters, const Buffer& values) {
    activate(kernels_named(isa), name, parameters, {values.data(), values.size()});
  }, "isa"_a, "name"_a, "parameters"_a, "values"_a.noconvert(), "Apply an activation in place, for tests.");
  m.attr("ACTIVATIONS") = [] {
    std::map<std::string, size_t> parameters;
    for (const auto& known : kActivations) parameters[known.name] = known.parameters;
    return parameters;
  }();
  m.def("fma_peak", [](const std::string& isa) {
    nb::gil_scoped_release release;
    return fma_peak(kernels_named(isa));
  }, "isa"_a, "Measured multiply-add peak of one core, floating-point operations a second.");
  const char* const groups = "Gather-scatter sparsity: of magnitudes [bundles, rows * banks, rank], adds how many the best groups take of each list.";
  m.def("take_groups", &checked_groups<float>, "ranked"_a.noconvert(), "banks"_a, "per_row"_a, "budget"_a, "taken"_a.noconvert(), groups);
  m.def("take_groups", &checked_groups<double>, "ranked"_a.noconvert(), "banks"_a, "per_row"_a, "budget"_a, "taken"_a.noconvert(), groups);
  m.attr("UNIT") = kUnit;
  m.attr("TILE") = kTile;
  m.attr("MAX_SAMPLES") = kMaxSamples;
  m.attr("MAX_DEPTHWISE") = kMaxDepthwise;

  nb::class_<Program>(m, "Program")
      .def(nb::init<int64_t, std::vector<int64_t>, int, const std::string&, std::vector<int>, int>(), "arena"_a, "externals"_a, "threads"_a,
           "isa"_a = "auto", "inputs"_a = std::vector<int>(), "turns"_a = 1,
           "No step may write into one of the external buffers `inputs`. A run makes the steps `turns` times, each time on the next share of the buffers.")
      .def("add", [](Program& p, const std::string& op, const std::string& fields, const nb::dict& arrays, int at) {
        std::map<std::string, Array> named;
        for (const auto& [name, array] : arrays) named.emplace(nb::cast<std::string>(name), held(nb::cast<AnyArray>(array)));
        const Json json = Json::parse(fields);
        return p.add(op, Fields(json, named), at);
      }, "op"_a, "fields"_a, "arrays"_a, "at"_a = -1,
         "Append a step made of JSON fields and arrays, or replace step `at`. Arrays are kept, not copied: do not change them.")
      .def("run", [](Program& p, int begin, int end, const std::vector<Buffer>& buffers, int level) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        p.run(begin, end, pointers, level);
      }, "begin"_a, "end"_a, "buffers"_a.noconvert(), "level"_a = 0, "Run steps [begin, end), at a level of nested sparsity.")
      .def("time_step", [](Program& p, int step, int repeats, const std::vector<Buffer>& buffers) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        return p.time_step(step, repeats, pointers);
      }, "step"_a, "repeats"_a, "buffers"_a.noconvert(), "Seconds of each of `repeats` runs of one step.")
      .def("profile", [](Program& p, int repeats, const std::vector<Buffer>& buffers, int level) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        return p.profile(repeats, pointers, level);
      }, "repeats"_a, "buffers"_a.noconvert(), "level"_a = 0, "Seconds of each step in each of `repeats` whole runs.")
      .def("kernel_name", &Program::kernel_name, "step"_a)
      .def("arena", [](Program& p) {
        return nb::ndarray<nb::numpy, float, nb::ndim<1>>(p.arena().data(), {p.arena().size()}, nb::find(p));
      }, "The arena as a NumPy array, for tests and debugging.")
      .def_prop_ro("isa", [](const Program& p) { return std::string(p.kernels().name); })
      .def_prop_ro("threads", &Program::threads)
      .def_prop_ro("levels", &Program::levels)
      .def("__len__", &Program::size);
}
