// One token of each of a few rows, read by a whole model on a CPU, and the log-probabilities of the next.
//
// A token's time is that of reading the weights and the kept keys and values once. So a thread reads several streams at a time
// and asks for what comes next of each (PREFETCH); weights of 2 bytes are widened in registers; threads meet only where one
// needs what another has computed. Rows are few: a weight is read once for all of them.
//
// Everything is in fp32 but weights, keys, values and distances, which are of T: float, or the upper half of one (bfloat16).
// B rows, at most MOST_ROWS; D d_model, H heads, K width of a head, W = H K.

namespace {

constexpr int SUMS = LANES;  // vectors that are kept in registers while weights stream by
constexpr int STREAMS = 4;
constexpr int64_t PREFETCH = 2048;   // bytes ahead
constexpr int64_t BEGINNING = 4096;  // bytes of a stream that are fetched while a thread would wait for others

inline void fetch(const void* from) {  // what a stream that is read there will need
  __builtin_prefetch(static_cast<const char*>(from) + PREFETCH);
}
inline void fetch_beginning(const void* of) {  // of a stream, before it is read
  for (int64_t at = 0; at < BEGINNING; at += 64) __builtin_prefetch(static_cast<const char*>(of) + at);
}

inline Quad totals(Vector a, Vector b, Vector c, Vector d) {  // the sum of the lanes of each
  const Quad p = folded(a), q = folded(b), r = folded(c), s = folded(d);
  const Quad pq = PICKED(p, q, 0, 4, 1, 5) + PICKED(p, q, 2, 6, 3, 7);
  const Quad rs = PICKED(r, s, 0, 4, 1, 5) + PICKED(r, s, 2, 6, 3, 7);
  return PICKED(pq, rs, 0, 1, 4, 5) + PICKED(pq, rs, 2, 3, 6, 7);
}

enum class Activation { none, relu, gelu };

template <typename T>
struct Linear {  // f(x W^T + b), W [N, K]
  const T *weight, *bias;  // no bias: null
  int64_t inputs, outputs;
  Activation activation = Activation::none;

  float output(int64_t n, float sum) const {
    if (bias) sum += wide(bias[n]);
    if (activation == Activation::none) return sum;
    return activation == Activation::gelu ? 0.5f * sum * (1.0f + std::erf(sum * 0.70710678f)) : std::max(sum, 0.0f);
  }
};

template <int B>
constexpr int streams_of() { return SUMS / B < STREAMS ? std::max(1, SUMS / B) : STREAMS; }

template <int B, typename T>
void fetch_beginnings(const Linear<T>& of) {  // of this thread's share of the weight
  const Share mine = share(of.outputs);
  const int64_t block = (mine.last - mine.first) / streams_of<B>();
  for (int s = 0; s < streams_of<B>(); ++s) fetch_beginning(of.weight + (mine.first + s * block) * of.inputs);
}

// Outputs [first, last) of rows x [B, K], as `streams` blocks side by side.
template <int B, int streams, typename T>
void dots(const Linear<T>& of, const float* x, const float* ends, int64_t first, int64_t last, float* out) {
  const int64_t inputs = of.inputs, block = (last - first) / streams, whole = inputs / LANES * LANES;
  for (int64_t n = first; n < first + block; ++n) {
    const T* row[streams];
    Vector sums[B * streams + 3] = {};
    for (int s = 0; s < streams; ++s) row[s] = of.weight + (n + s * block) * inputs;
    for (int64_t k = 0; k < whole; k += LANES) {
      Vector given[B];
      for (int b = 0; b < B; ++b) given[b] = load(x + b * inputs + k);
      for (int s = 0; s < streams; ++s) {
        fetch(row[s] + k);
        const Vector weights = load(row[s] + k);
        for (int b = 0; b < B; ++b) sums[b * streams + s] += given[b] * weights;
      }
    }
    if (whole < inputs)
      for (int s = 0; s < streams; ++s) {
        const Vector weights = load(row[s] + inputs - LANES);
        for (int b = 0; b < B; ++b) sums[b * streams + s] += load(ends + b * LANES) * weights;
      }
    for (int i = 0; i < B * streams; i += 4) {
      const Quad found = totals(sums[i], sums[i + 1], sums[i + 2], sums[i + 3]);
      for (int j = i; j < std::min(i + 4, B * streams); ++j) {
        const int64_t at = n + j % streams * block;
        out[j / streams * of.outputs + at] = of.output(at, found[j - i]);
      }
    }
  }
  if (streams > 1) dots<B, 1>(of, x, ends, first + block * streams, last, out);
}

// This thread's share of the outputs of x [B, K], into out [B, N].
template <int B, typename T>
void product(const Linear<T>& of, const float* x, float* out) {
  const Share mine = share(of.outputs);
  if (of.inputs < LANES) {
    for (int64_t n = mine.first; n < mine.last; ++n)
      for (int b = 0; b < B; ++b) {
        float sum = 0;
        for (int64_t k = 0; k < of.inputs; ++k) sum += x[b * of.inputs + k] * wide(of.weight[n * of.inputs + k]);
        out[b * of.outputs + n] = of.output(n, sum);
      }
    return;
  }
  float ends[B * LANES];  // the last LANES inputs, without those that whole vectors have taken
  for (int b = 0; b < B; ++b)
    for (int lane = 0; lane < LANES; ++lane)
      ends[b * LANES + lane] = lane < LANES - of.inputs % LANES ? 0.0f : x[(b + 1) * of.inputs - LANES + lane];
  dots<B, streams_of<B>()>(of, x, ends, mine.first, mine.last, out);
}

struct Sizes {
  int64_t layers, rows, width, heads, head, inner, slots;  // L, B, D, H, K, d_inner; memory slots that are read
  int64_t layer_stride, row_stride, head_stride;                 // of keys and values, in elements
  int64_t pre_norm, gelu, threads;
};

template <typename T>
struct Layer {
  const T *qkv, *output, *inner, *outer;                          // [3 W, D], [D, W], [d_inner, D], [D, d_inner]
  const T *qkv_bias, *output_bias, *inner_bias, *outer_bias;      // or null
  const float *content_bias, *position_bias;                      // [H, K]
  const T* distances;                                             // [H, slots + 1, K]
  const float *norm, *norm_bias, *second_norm, *second_norm_bias;  // [D]
  float epsilon, second_epsilon;
};

struct Scratch {  // shared by threads
  float *qkv, *mixed, *hidden, *added;
};

void normalise(const float* x, const float* scale, const float* bias, float epsilon, int64_t rows, int64_t width, float* out) {
  auto mean = [width](auto of, auto of_one) {
    Vector sum = {};
    int64_t d = 0;
    for (; d + LANES <= width; d += LANES) sum += of(d);
    float all = total(sum);
    for (; d < width; ++d) all += of_one(d);
    return all / width;
  };
  for (int64_t b = 0; b < rows; ++b, x += width, out += width) {
    const float middle = mean([&](int64_t d) { return load(x + d); }, [&](int64_t d) { return x[d]; });
    const float variance = mean([&](int64_t d) { return (load(x + d) - middle) * (load(x + d) - middle); },
                                [&](int64_t d) { return (x[d] - middle) * (x[d] - middle); });
    const float scaled = 1.0f / std::sqrt(variance + epsilon);
    for (int64_t d = 0; d < width; ++d) out[d] = (x[d] - middle) * scaled * scale[d] + bias[d];
  }
}

// A head of K >= LANES elements as vectors, of which the last begins at K - LANES: what it has again counts as zero in a query.
inline int64_t vectors(int64_t head) { return (head + LANES - 1) / LANES; }
inline int64_t beginning(int64_t vector, int64_t head) { return std::min(vector * LANES, head - LANES); }

// Scores of `slots` keys, [K] each: content with the key, position with the distance. Of several parts of the slots at a time.
template <typename T>
void score(const T* keys, const T* distances, const float* content, const float* position, int64_t slots, int64_t head,
           float* scores) {
  auto some = [&](int64_t slot, int64_t apart, auto count) {  // of `count` slots, fours of which are `apart`
    Vector sums[count] = {};
    for (int64_t v = 0; v < vectors(head); ++v) {
      const Vector q = load(content + v * LANES), p = load(position + v * LANES);
      const int64_t from = slot * head + beginning(v, head);
      for (int s = 0; s < count; ++s) {
        const int64_t at = from + (s / 4 * apart + s % 4) * head;
        fetch(keys + at);
        fetch(distances + at);
        sums[s] += q * load(keys + at);
        sums[s] += p * load(distances + at);
      }
    }
    if constexpr (count == 1) scores[slot] = total(sums[0]);
    else
      for (int s = 0; s < count; s += 4)
        *reinterpret_cast<Quad*>(scores + slot + s / 4 * apart) = totals(sums[s], sums[s + 1], sums[s + 2], sums[s + 3]);
  };
  constexpr int fours = SUMS / 8;
  const int64_t part = slots / fours / 4 * 4;
  int64_t slot = 0;
  for (; slot < part; slot += 4) some(slot, part, std::integral_constant<int, 4 * fours>());
  for (slot = fours * part; slot < slots; ++slot) some(slot, 0, std::integral_constant<int, 1>());
}

// [K]: the values of `slots` slots, each times its weight, over `all`. Of several parts of the slots at a time.
template <typename T>
void mix(const T* values, const float* weights, float all, int64_t slots, int64_t head, float* mixed) {
  int64_t v = 0;
  auto some = [&](auto count) {  // vectors
    constexpr int parts = SUMS / 4;
    Vector sums[parts][count] = {};
    int64_t from[count];
    for (int i = 0; i < count; ++i) from[i] = beginning(v + i, head);
    auto add = [&](int64_t slot, int part) {
      for (int i = 0; i < count; ++i) {
        const T* value = values + slot * head + from[i];
        fetch(value);
        sums[part][i] += load(value) * weights[slot];
      }
    };
    const int64_t size = slots / parts;
    for (int64_t slot = 0; slot < size; ++slot)
      for (int part = 0; part < parts; ++part) add(slot + part * size, part);
    for (int64_t slot = parts * size; slot < slots; ++slot) add(slot, 0);
    for (int i = 0; i < count; ++i) {
      Vector sum = sums[0][i];
      for (int part = 1; part < parts; ++part) sum += sums[part][i];
      store(mixed + from[i], sum / all);
    }
    v += count;
  };
  while (v + 4 <= vectors(head)) some(std::integral_constant<int, 4>());
  if (v + 3 == vectors(head)) some(std::integral_constant<int, 3>());
  if (v + 2 == vectors(head)) some(std::integral_constant<int, 2>());
  if (v + 1 == vectors(head)) some(std::integral_constant<int, 1>());
}

// The same of heads that are narrower than a vector.
template <typename T>
void score_narrow(const T* keys, const T* distances, const float* content, const float* position, int64_t slots, int64_t head,
                  float* scores) {
  for (int64_t slot = 0; slot < slots; ++slot) {
    scores[slot] = 0;
    for (int64_t k = 0; k < head; ++k)
      scores[slot] += content[k] * wide(keys[slot * head + k]) + position[k] * wide(distances[slot * head + k]);
  }
}
template <typename T>
void mix_narrow(const T* values, const float* weights, float all, int64_t slots, int64_t head, float* mixed) {
  std::fill(mixed, mixed + head, 0.0f);
  for (int64_t slot = 0; slot < slots; ++slot)
    for (int64_t k = 0; k < head; ++k) mixed[k] += wide(values[slot * head + k]) * weights[slot] / all;
}

float largest(const float* of, int64_t many) {
  int64_t n = 0;
  float most = of[0];
  if (many >= LANES) {
    Vector vector = load(of);
    for (; n + LANES <= many; n += LANES) vector = vector > load(of + n) ? vector : load(of + n);
    for (int lane = 0; lane < LANES; ++lane) most = std::max(most, vector[lane]);
  }
  for (; n < many; ++n) most = std::max(most, of[n]);
  return most;
}

float weigh(float* scores, int64_t slots) {  // their exponentials less the largest's, whose sum is returned
  const float most = largest(scores, slots);
  Vector sum = {};
  int64_t slot = 0;
  for (; slot + LANES <= slots; slot += LANES) {
    const Vector weights = exponential(load(scores + slot) - most);
    store(scores + slot, weights);
    sum += weights;
  }
  float all = total(sum);
  for (; slot < slots; ++slot) all += scores[slot] = std::exp(scores[slot] - most);
  return all;
}

// One row and head: its key and value are written into the last slot; unfilled slots are left out.
template <typename T>
void attend(const Sizes& m, const Layer<T>& layer, const Scratch& at, T* keys, T* values, int64_t row, int64_t head,
            int64_t unfilled, float* scores, float* queries) {
  const int64_t K = m.head, width = m.heads * K, slots = m.slots + 1 - unfilled;
  const float *q = at.qkv + row * 3 * width + head * K, *u = layer.content_bias + head * K, *v = layer.position_bias + head * K;
  for (int64_t k = 0; k < K; ++k) {
    narrow(q[width + k], keys + m.slots * K + k);
    narrow(q[2 * width + k], values + m.slots * K + k);
  }
  const bool in_vectors = K >= LANES;
  const int64_t many = in_vectors ? vectors(K) * LANES : K;
  float *content = queries, *position = queries + many, scale = 1.0f / std::sqrt(static_cast<float>(K));
  for (int64_t i = 0; i < many; ++i) {
    const int64_t k = in_vectors ? beginning(i / LANES, K) + i % LANES : i;
    content[i] = k < i / LANES * LANES ? 0.0f : (q[k] + u[k]) * scale;
    position[i] = k < i / LANES * LANES ? 0.0f : (q[k] + v[k]) * scale;
  }
  const T* distances = layer.distances + (head * (m.slots + 1) + unfilled) * K;
  (in_vectors ? score<T> : score_narrow<T>)(keys + unfilled * K, distances, content, position, slots, K, scores);
  fetch_beginning(values + unfilled * K);
  const float all = weigh(scores, slots);
  (in_vectors ? mix<T> : mix_narrow<T>)(values + unfilled * K, scores, all, slots, K, at.mixed + row * width + head * K);
}

template <typename T>
Linear<T> qkv_of(const Sizes& m, const Layer<T>& layer) {
  return {layer.qkv, layer.qkv_bias, m.width, 3 * m.heads * m.head};
}

template <int B, typename T>
void read_layer(const Sizes& m, const Layer<T>& layer, const Layer<T>* next, const Scratch& at, T* keys, T* values,
                const int64_t* unfilled, float* x, float* normed, float* scores, float* queries) {
  const int64_t width = m.heads * m.head;
  auto norm = [&](float* to) { normalise(x, layer.norm, layer.norm_bias, layer.epsilon, B, m.width, to); };
  auto second_norm = [&](float* to) {
    normalise(x, layer.second_norm, layer.second_norm_bias, layer.second_epsilon, B, m.width, to);
  };
  auto add = [&] { for (int64_t d = 0; d < B * m.width; ++d) x[d] += at.added[d]; };

  const Activation activation = m.gelu ? Activation::gelu : Activation::relu;
  const Linear<T> output{layer.output, layer.output_bias, width, m.width};
  const Linear<T> inner{layer.inner, layer.inner_bias, m.width, m.inner, activation};
  const Linear<T> outer{layer.outer, layer.outer_bias, m.inner, m.width};
  const Share mine = share(m.heads * B);
  auto start = [&](int64_t i) { return i % B * m.row_stride + i / B * m.head_stride; };
  auto fetch_keys = [&](int64_t i) {
    fetch_beginning(keys + start(i) + unfilled[i % B] * m.head);
    fetch_beginning(layer.distances + (i / B * (m.slots + 1) + unfilled[i % B]) * m.head);
  };

  if (m.pre_norm) norm(normed);
  product<B>(qkv_of(m, layer), m.pre_norm ? normed : x, at.qkv);
  if (mine.first < mine.last) fetch_keys(mine.first);
#pragma omp barrier
  for (int64_t i = mine.first; i < mine.last; ++i) {
    if (i + 1 < mine.last) fetch_keys(i + 1);
    attend(m, layer, at, keys + start(i), values + start(i), i % B, i / B, unfilled[i % B], scores, queries);
  }
  fetch_beginnings<B>(output);
#pragma omp barrier
  product<B>(output, at.mixed, at.added);
  fetch_beginnings<B>(inner);
#pragma omp barrier
  add();
  if (m.pre_norm) second_norm(normed);
  else norm(x);
  product<B>(inner, m.pre_norm ? normed : x, at.hidden);
  fetch_beginnings<B>(outer);
#pragma omp barrier
  product<B>(outer, at.hidden, at.added);
  if (next) fetch_beginnings<B>(qkv_of(m, *next));
#pragma omp barrier
  add();
  if (!m.pre_norm) second_norm(x);
}

template <int B, typename T>
void read_rows(const Sizes& m, const Layer<T>* layers, float* x, T* keys, T* values, const int64_t* unfilled) {
  const int64_t width = m.heads * m.head;
  static thread_local std::vector<float> shared;
  shared.resize(B * (4 * width + m.inner + m.width));
  float* from = shared.data();
  const Scratch at = {from, from + B * 3 * width, from + B * 4 * width, from + B * (4 * width + m.inner)};
#pragma omp parallel num_threads(m.threads)
  {
    static thread_local std::vector<float> own;  // each thread's own copy of the rows: no thread waits to add or to norm
    own.resize(2 * B * m.width + m.slots + 1 + 2 * (m.head + LANES));
    float *mine = own.data(), *normed = mine + B * m.width, *scores = normed + B * m.width, *queries = scores + m.slots + 1;
    std::copy(x, x + B * m.width, mine);
    for (int64_t l = 0; l < m.layers; ++l)
      read_layer<B>(m, layers[l], l + 1 < m.layers ? layers + l + 1 : nullptr, at, keys + l * m.layer_stride,
                    values + l * m.layer_stride, unfilled, mine, normed, scores, queries);
    if (omp_get_thread_num() == 0) std::copy(mine, mine + B * m.width, x);
  }
}

template <typename T>
struct Cluster {
  const T *weight, *bias, *projection;  // [outputs, inputs], [outputs], [inputs, D] or null
  int64_t outputs, inputs;
};

// How many of the numbers, less `less`, are more than `than`. What is no number is not more, nor is anything more than it.
int64_t larger(const float* of, int64_t many, float less, float than) {
  Whole counts = {};
  int64_t n = 0, found = 0;
  for (; n + LANES <= many; n += LANES) counts -= load(of + n) - less > than;
  for (int lane = 0; lane < LANES; ++lane) found += counts[lane];
  for (; n < many; ++n) found += of[n] - less > than;
  return found;
}

struct Exponentials {  // of a thread's share of logits: their largest, and the sum of the exponentials of what they are less it
  float most, sum;
};
Exponentials exponentials(const float* logits, Share of) {
  if (of.first == of.last) return {-INFINITY, 0};
  Exponentials found = {largest(logits + of.first, of.last - of.first), 0};
  Vector sum = {};
  int64_t n = of.first;
  for (; n + LANES <= of.last; n += LANES) sum += exponential(load(logits + n) - found.most);
  found.sum = total(sum);
  for (; n < of.last; ++n) found.sum += std::exp(logits[n] - found.most);
  return found;
}
float logarithm(const Exponentials* parts, int64_t apart) {  // of the sum of the exponentials of all threads' logits
  float most = -INFINITY, sum = 0;
  for (int64_t i = 0; i < omp_get_num_threads(); ++i) most = std::max(most, parts[i * apart].most);
  for (int64_t i = 0; i < omp_get_num_threads(); ++i)
    if (parts[i * apart].sum != 0) sum += parts[i * apart].sum * std::exp(parts[i * apart].most - most);
  return most + std::log(sum);
}

// Of the head's outputs the last are the further clusters, whose log-probabilities are added to those of their words: no word is
// likelier than its cluster. So a cluster than which `likeliest` of the head's words are likelier, in every row, is not read.
template <int B, typename T>
void next_rows(const Cluster<T>* clusters, int64_t count, const float* x, int64_t width, int64_t likeliest, float* out,
               int64_t threads) {
  const int64_t head = clusters[0].outputs, head_words = head - (count - 1);
  int64_t outputs = 0, inputs = 0;
  for (int64_t c = 0; c < count; ++c) outputs += clusters[c].outputs, inputs += clusters[c].inputs;
  const int64_t words = outputs - (count - 1);
  static thread_local std::vector<float> shared;
  shared.resize(B * (outputs + inputs));
  std::vector<float*> logits(count, shared.data()), narrowed(count, shared.data() + B * outputs);
  for (int64_t c = 1; c < count; ++c) {
    logits[c] = logits[c - 1] + B * clusters[c - 1].outputs;
    narrowed[c] = narrowed[c - 1] + B * clusters[c - 1].inputs;
  }
  std::vector<Exponentials> parts(threads * count * B);  // of each thread, cluster and row
#pragma omp parallel num_threads(threads)
  {
    std::vector<char> left_out(count, false);  // the same in every thread
    auto log_sum = [&](int64_t c, int b) { return logarithm(&parts[c * B + b], count * B); };
    auto of_cluster = [&](int64_t c, int b) { return logits[0][b * head + head_words + c - 1] - log_sum(0, b); };
    auto can_be_left_out = [&](int64_t c) {
      for (int b = 0; b < B; ++b)
        if (larger(logits[0] + b * head, head_words, log_sum(0, b), of_cluster(c, b)) < likeliest) return false;
      return true;
    };
    auto read = [&](int64_t first, int64_t last) {  // clusters
      for (int64_t c = first; c < last; ++c)
        if (clusters[c].projection && !left_out[c])
          product<B>(Linear<T>{clusters[c].projection, nullptr, width, clusters[c].inputs}, x, narrowed[c]);
#pragma omp barrier
      for (int64_t c = first; c < last; ++c) {
        if (left_out[c]) continue;
        const Cluster<T>& of = clusters[c];
        product<B>(Linear<T>{of.weight, of.bias, of.inputs, of.outputs}, of.projection ? narrowed[c] : x, logits[c]);
        for (int b = 0; b < B; ++b)
          parts[(omp_get_thread_num() * count + c) * B + b] = exponentials(logits[c] + b * of.outputs, share(of.outputs));
      }
#pragma omp barrier
    };
    const int64_t at_once = likeliest <= head_words ? 1 : count;
    read(0, at_once);
    for (int64_t c = at_once; c < count; ++c) left_out[c] = can_be_left_out(c);
    if (at_once < count) read(at_once, count);

    int64_t word = 0;
    for (int64_t c = 0; c < count; ++c) {
      const int64_t its_words = c ? clusters[c].outputs : head_words;
      const Share done = share(its_words);
      for (int b = 0; b < B; ++b) {
        float* to = out + b * words + word;
        const float* from = logits[c] + b * clusters[c].outputs;
        if (left_out[c]) {
          std::fill(to + done.first, to + done.last, -INFINITY);
          continue;
        }
        const float less = log_sum(c, b), added = c ? of_cluster(c, b) : 0.0f;  // one after the other, so that none exceeds `added`
        for (int64_t n = done.first; n < done.last; ++n) to[n] = (from[n] - less) + added;
      }
      word += its_words;
    }
  }
}

template <int B, typename T>
void read_token(const Sizes& m, const Layer<T>* layers, float* x, T* keys, T* values, const int64_t* unfilled) {
  if (m.rows == B) return read_rows<B>(m, layers, x, keys, values, unfilled);
  if constexpr (B < MOST_ROWS) read_token<B + 1>(m, layers, x, keys, values, unfilled);
}

template <int B, typename T>
void next_token(const Cluster<T>* clusters, int64_t count, int64_t rows, const float* x, int64_t width, int64_t likeliest,
                float* out, int64_t threads) {
  if (rows == B) return next_rows<B>(clusters, count, x, width, likeliest, out, threads);
  if constexpr (B < MOST_ROWS) next_token<B + 1>(clusters, count, rows, x, width, likeliest, out, threads);
}

template <int B, typename T>
void product_of(const T* weight, int64_t inputs, int64_t outputs, int64_t rows, const float* x, float* out, int64_t threads) {
  if (rows == B) {
#pragma omp parallel num_threads(threads)
    product<B>(Linear<T>{weight, nullptr, inputs, outputs}, x, out);
  } else if constexpr (B < MOST_ROWS) {
    product_of<B + 1>(weight, inputs, outputs, rows, x, out, threads);
  }
}

constexpr int64_t LARGE_PAGE = 2 << 20;

}  // namespace

// Have the system keep what is at [from, from + bytes), and what shares its pages, in large pages, as far as it can within
// `seconds`: streams need not begin anew at every 4 KiB. Only Linux does so.
extern "C" void in_large_pages(char* from, int64_t bytes, double seconds) {
#ifdef __linux__
  const auto stop = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  char* page = from - reinterpret_cast<uintptr_t>(from) % LARGE_PAGE;
  for (; page < from + bytes && std::chrono::steady_clock::now() < stop; page += LARGE_PAGE)
    madvise(page, LARGE_PAGE, 25);  // MADV_COLLAPSE, which older headers lack: not possible for a page is no error for the others
#endif
}

#define ENTRY_POINTS(NAME, T)                                                                                                          \
  extern "C" void read_##NAME(const Sizes* sizes, const Layer<T>* layers, float* x, T* keys, T* values,                     \
                              const int64_t* unfilled) {                                                                    \
    read_token<1>(*sizes, layers, x, keys, values, unfilled);                                                               \
  }                                                                                                                          \
  extern "C" void next_##NAME(const Cluster<T>* clusters, int64_t count, int64_t rows, const float* x, int64_t width,       \
                              int64_t likeliest, float* out, int64_t threads) {                                             \
    next_token<1>(clusters, count, rows, x, width, likeliest, out, threads);                                                \
  }                                                                                                                          \
  extern "C" void product_##NAME(const T* weight, int64_t inputs, int64_t outputs, int64_t rows, const float* x, float* out, \
                                 int64_t threads) {                                                                         \
    product_of<1>(weight, inputs, outputs, rows, x, out, threads);                                                          \
  }

ENTRY_POINTS(float32, float)
ENTRY_POINTS(bfloat16, bfloat16)
