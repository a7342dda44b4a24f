// A residual: the sum of what went into a layer, in fp32, and of what came out, in bf16, normed (Ba, Kiros, Hinton 2016: Layer
// Normalization, arXiv:1607.06450), in both precisions. In one pass each way over rows that stay in a core's first cache. It is
// put after vectors.h.

namespace {

struct Rows {
  int64_t count, width, threads;
  float slight;  // added to the variance

  int64_t left(int64_t i) const { return std::min<int64_t>(width - i, LANES); }
};

template <class N>
inline Vector some(const N* from, int64_t count) {  // the rest zeros
  if (count == LANES) return load(from);
  N rest[LANES] = {};
  std::copy_n(from, count, rest);
  return load(rest);
}
template <class N>
inline void put(N* to, Vector value, int64_t count) {
  if (count == LANES) return store(to, value);
  N rest[LANES];
  store(rest, value);
  std::copy_n(rest, count, to);
}

struct Statistics {
  float mean, inverse;  // of the standard deviation
};

Statistics add(const Rows& m, const float* x, const bfloat16* y, float* sum) {
  Vector all = {};
  for (int64_t i = 0; i < m.width; i += LANES) {
    const Vector both = some(x + i, m.left(i)) + some(y + i, m.left(i));
    put(sum + i, both, m.left(i));
    all += both;
  }
  const float mean = total(all) / m.width;
  Vector squares = {};
  int64_t i = 0;
  for (; i + LANES <= m.width; i += LANES) {
    const Vector off = load(sum + i) - mean;
    squares += off * off;
  }
  float square = total(squares);
  for (; i < m.width; ++i) square += (sum[i] - mean) * (sum[i] - mean);
  return {mean, 1.0f / std::sqrt(square / m.width + m.slight)};
}

}  // namespace

extern "C" void add_norm(const Rows* rows, const float* x, const bfloat16* y, const float* weight, const float* bias, float* sum,
                         float* out, bfloat16* narrow, Statistics* statistics) {
  const Rows& m = *rows;
#pragma omp parallel num_threads(m.threads)
  {
    const Share mine = share(m.count);
    for (int64_t row = mine.first; row < mine.last; ++row) {
      const int64_t at = row * m.width;
      const Statistics found = statistics[row] = add(m, x + at, y + at, sum + at);
      for (int64_t i = 0; i < m.width; i += LANES) {
        const int64_t n = m.left(i);
        const Vector normed = (some(sum + at + i, n) - found.mean) * found.inverse;
        const Vector result = normed * some(weight + i, n) + some(bias + i, n);
        put(out + at + i, result, n), put(narrow + at + i, result, n);
      }
    }
  }
}

// Given gradients of `out` and `narrow`, of which one may be null.
extern "C" void add_norm_backward(const Rows* rows, const float* of_out, const bfloat16* of_narrow, const float* sum,
                                  const Statistics* statistics, const float* weight, float* of_x, bfloat16* of_y,
                                  float* of_weight, float* of_bias) {
  const Rows& m = *rows;
  const int64_t padded = rounded(m.width, LANES);
  std::vector<float> parts;  // of each thread, of weight and bias
  auto gradient = [&](int64_t at, int64_t n) {
    const Vector wide = of_out ? some(of_out + at, n) : Vector{};
    return of_narrow ? wide + some(of_narrow + at, n) : wide;
  };
#pragma omp parallel num_threads(m.threads)
  {
#pragma omp single
    parts.resize(2 * padded * omp_get_num_threads());
    float *to_weight = parts.data() + 2 * padded * omp_get_thread_num(), *to_bias = to_weight + padded;
    const Share mine = share(m.count);
    for (int64_t row = mine.first; row < mine.last; ++row) {
      const int64_t at = row * m.width;
      const auto [mean, inverse] = statistics[row];
      Vector all = {}, along = {};
      for (int64_t i = 0; i < m.width; i += LANES) {
        const int64_t n = m.left(i);
        const Vector given = gradient(at + i, n), normed = (some(sum + at + i, n) - mean) * inverse;
        const Vector weighed = given * some(weight + i, n);
        store(to_weight + i, load(to_weight + i) + given * normed), store(to_bias + i, load(to_bias + i) + given);
        all += weighed, along += weighed * normed;
      }
      const float less = total(all) / m.width, turned = total(along) / m.width;
      for (int64_t i = 0; i < m.width; i += LANES) {
        const int64_t n = m.left(i);
        const Vector normed = (some(sum + at + i, n) - mean) * inverse;
        const Vector result = (gradient(at + i, n) * some(weight + i, n) - less - normed * turned) * inverse;
        put(of_x + at + i, result, n), put(of_y + at + i, result, n);
      }
    }
#pragma omp barrier
    const Share columns = share(m.width);
    for (int64_t i = columns.first; i < columns.last; ++i) {
      of_weight[i] = of_bias[i] = 0;
      for (int64_t thread = 0; thread < omp_get_num_threads(); ++thread)
        of_weight[i] += parts[2 * padded * thread + i], of_bias[i] += parts[2 * padded * thread + padded + i];
    }
  }
}
