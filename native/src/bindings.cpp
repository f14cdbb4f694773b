// The Python face: typed step constructors, NumPy in and out. Everything is checked in C++; a ValueError says what is wrong.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "program.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace openwork {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Buffer = nb::ndarray<float, nb::c_contig, nb::device::cpu>;

template <class T>
std::span<const T> span(const Array<T>& a) {
  return {a.data(), a.size()};
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

}  // namespace
}  // namespace openwork

NB_MODULE(_native, m) {
  using namespace openwork;
  m.doc() = "Openwork's native engine: kernels, program interpreter, thread pool.";

  m.def("isas", [] {
    std::vector<std::string> names;
    for (const Kernels* k : available_kernels()) names.emplace_back(k->name);
    return names;
  }, "Instruction sets that run here, best first; 'reference' is the naive one.");
  m.def("lanes", [](const std::string& isa) {
    for (const Kernels* k : available_kernels())
      if (isa == k->name) return k->lanes;
    throw std::invalid_argument("unknown instruction set");
  }, "isa"_a, "Floats in a vector of an instruction set.");
  m.def("widest_tile", [](const std::string& isa, int mb) {
    for (const Kernels* k : available_kernels())
      if (isa == k->name) {
        int widest = 0;
        const int family = mb == 1 ? 0 : mb == 2 ? 1 : mb == 4 ? 2 : 3;
        for (int v = 0; v < kMaxVectors; v++)
          if (k->taps[family][v]) widest = v + 1;
        return widest;
      }
    throw std::invalid_argument("unknown instruction set");
  }, "isa"_a, "mb"_a, "Vectors of positions in the widest register block of mb rows.");
  m.def("fma_peak", [](const std::string& isa) {
    nb::gil_scoped_release release;
    for (const Kernels* k : available_kernels())
      if (isa == k->name) return fma_peak(*k);
    return 0.0;
  }, "isa"_a, "Measured multiply-add peak of one core, floating-point operations a second.");
  m.attr("UNIT") = kUnit;
  m.attr("MAX_SAMPLES") = kMaxSamples;

  nb::class_<Program>(m, "Program")
      .def(nb::init<int64_t, std::vector<int64_t>, int, const std::string&>(), "arena"_a, "externals"_a, "threads"_a, "isa"_a = "auto")
      .def("taps", [](Program& p, int mb, int vectors, int row_chunks, int tile_chunks, Array<int32_t> start, Array<int32_t> index,
                      Array<int32_t> table, Array<float> value, Array<float> bias, Array<int32_t> out, Array<int32_t> residual,
                      Array<uint16_t> inside, float lo, float hi, int at) {
        return p.add(TapsSpec{mb, vectors, row_chunks, tile_chunks, span(start), span(index), span(table), span(value), span(bias),
                              span(out), span(residual), span(inside), lo, hi}, at);
      }, "mb"_a, "vectors"_a, "row_chunks"_a, "tile_chunks"_a, "start"_a, "index"_a, "table"_a, "value"_a, "bias"_a, "out"_a,
         "residual"_a, "inside"_a, "lo"_a, "hi"_a, "at"_a = -1)
      .def("rows", [](Program& p, int width, int row_chunks, int samples, int64_t batch, int64_t x, int64_t x_stride, int64_t y,
                      int64_t y_stride, Array<int32_t> start, Array<int32_t> index, Array<float> value, Array<float> bias, float lo,
                      float hi, int at) {
        return p.add(RowsSpec{width, row_chunks, samples, batch, x, x_stride, y, y_stride, span(start), span(index), span(value),
                              span(bias), lo, hi}, at);
      }, "width"_a, "row_chunks"_a, "samples"_a, "batch"_a, "x"_a, "x_stride"_a, "y"_a, "y_stride"_a, "start"_a, "index"_a,
         "value"_a, "bias"_a, "lo"_a, "hi"_a, "at"_a = -1)
      .def("pool", [](Program& p, bool max, int x_buffer, int64_t x_pitch, int64_t x_stride, Array<int32_t> x_offset, int y_buffer,
                      int64_t y_pitch, int64_t y_stride, Array<int32_t> y_offset, int64_t batch, std::vector<int> size,
                      std::vector<int> kernel, std::vector<int> stride, std::vector<int> padding, std::vector<int> dilation,
                      Array<float> scale_y, Array<float> scale_x, int at) {
        require(size.size() == 4 && kernel.size() == 2 && stride.size() == 2 && padding.size() == 2 && dilation.size() == 2,
                "pooling needs sizes (h, w, out_h, out_w) and pairs");
        return p.add(PoolSpec{max, View{x_buffer, x_pitch, x_stride, span(x_offset)}, View{y_buffer, y_pitch, y_stride, span(y_offset)},
                              batch, size[0], size[1], size[2], size[3], kernel[0], kernel[1], stride[0], stride[1], padding[0],
                              padding[1], dilation[0], dilation[1], span(scale_y), span(scale_x)}, at);
      }, "max"_a, "x_buffer"_a, "x_pitch"_a, "x_stride"_a, "x_offset"_a, "y_buffer"_a, "y_pitch"_a, "y_stride"_a, "y_offset"_a,
         "batch"_a, "size"_a, "kernel"_a, "stride"_a, "padding"_a, "dilation"_a, "scale_y"_a, "scale_x"_a, "at"_a = -1)
      .def("copy", [](Program& p, int x_buffer, int64_t x_pitch, int64_t x_stride, Array<int32_t> x_offset, int y_buffer,
                      int64_t y_pitch, int64_t y_stride, Array<int32_t> y_offset, int64_t batch, int step_y, int step_x,
                      Array<int32_t> rows, Array<int32_t> columns, int at) {
        return p.add(CopySpec{View{x_buffer, x_pitch, x_stride, span(x_offset)}, View{y_buffer, y_pitch, y_stride, span(y_offset)},
                              batch, step_y, step_x, span(rows), span(columns)}, at);
      }, "x_buffer"_a, "x_pitch"_a, "x_stride"_a, "x_offset"_a, "y_buffer"_a, "y_pitch"_a, "y_stride"_a, "y_offset"_a, "batch"_a,
         "step_y"_a, "step_x"_a, "rows"_a, "columns"_a, "at"_a = -1)
      .def("mean", [](Program& p, int x_buffer, int64_t x_pitch, int64_t x_stride, Array<int32_t> x_offset, int64_t batch, int64_t y,
                      int64_t y_stride, int h, int w, float scale, int at) {
        return p.add(MeanSpec{View{x_buffer, x_pitch, x_stride, span(x_offset)}, batch, y, y_stride, h, w, scale}, at);
      }, "x_buffer"_a, "x_pitch"_a, "x_stride"_a, "x_offset"_a, "batch"_a, "y"_a, "y_stride"_a, "h"_a, "w"_a, "scale"_a, "at"_a = -1)
      .def("run", [](Program& p, int begin, int end, const std::vector<Buffer>& buffers) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        p.run(begin, end, pointers);
      }, "begin"_a, "end"_a, "buffers"_a.noconvert(), "Run steps [begin, end).")
      .def("time_step", [](Program& p, int step, int repeats, const std::vector<Buffer>& buffers) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        return p.time_step(step, repeats, pointers);
      }, "step"_a, "repeats"_a, "buffers"_a.noconvert(), "Seconds of each of `repeats` runs of one step.")
      .def("profile", [](Program& p, int repeats, const std::vector<Buffer>& buffers) {
        const auto pointers = checked_pointers(p, buffers);
        nb::gil_scoped_release release;
        return p.profile(repeats, pointers);
      }, "repeats"_a, "buffers"_a.noconvert(), "Seconds of each step in each of `repeats` whole runs.")
      .def("kernel_name", &Program::kernel_name, "step"_a)
      .def("arena", [](Program& p) {
        return nb::ndarray<nb::numpy, float, nb::ndim<1>>(p.arena().data(), {p.arena().size()}, nb::find(p));
      }, "The arena as a NumPy array, for tests and debugging.")
      .def_prop_ro("isa", [](const Program& p) { return std::string(p.kernels().name); })
      .def_prop_ro("threads", &Program::threads)
      .def("__len__", &Program::size);
}
