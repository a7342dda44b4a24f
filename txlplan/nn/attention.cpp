// Relative attention over memory and segment on a CPU, forward and backward: a block of queries of one head of one sequence
// at a time, whose scores stay in a core's cache.
//
// B sequences, T queries, M memory slots, S = M + T keys, H heads, K width of a head. Keys that come after a block's last query
// are left out. Rows of operands are made up with zeros to whole vectors, [rows, KP]; those that are read along a head's width
// are turned and cut into panels of PANEL columns, [panels, K, PANEL].
//
// Distances lie from the farthest, S - 1, to 0. Scores of t queries have a column for each distance from the farthest of the
// block on. Read with rows that are one element shorter, from the (t - 1)th on, row i begins one distance later than row i - 1:
// the relative shift moves nothing, and content scores are added in place. A row's GAP keeps what is written of made up columns
// apart from the next row.
//
// Probabilities are not divided by their sums: a factor of each row does that to what is made of them.

namespace {

// QUERIES is given: of a block, at most.
constexpr int64_t PANEL = 64, GAP = 16;
static_assert(QUERIES % PANEL == 0, "a block begins where a panel of distances does");
constexpr int ROWS = 6;  // of a result that registers hold
constexpr int MOST = LANES == 16 ? 4 : 2;  // vectors of such a row
constexpr int SUMS = 4;  // that do not wait for each other
constexpr int64_t DEPTH = 64;  // of what is multiplied before the result is put down

// C [M, V vectors] (+)= A B, where A [M, depth] is read an element at a time, B [depth, V vectors] in rows.
template <int M, int V>
inline void few(int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_row, float* c,
                int64_t c_row, bool add) {
  Vector sums[M][V];
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) sums[i][v] = Vector{};
  for (int64_t k = 0; k < depth; ++k) {
    Vector given[V];
    for (int v = 0; v < V; ++v) given[v] = load(b + k * b_row + v * LANES);
    for (int i = 0; i < M; ++i) {
      const float weight = a[i * a_row + k * a_depth];
      for (int v = 0; v < V; ++v) sums[i][v] += given[v] * weight;
    }
  }
  for (int i = 0; i < M; ++i)
    for (int v = 0; v < V; ++v) {
      float* to = c + i * c_row + v * LANES;
      store(to, add ? load(to) + sums[i][v] : sums[i][v]);
    }
}

template <int M, int V>
inline void fewer(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_row,
                  float* c, int64_t c_row, bool add) {  // of at most M rows
  if (rows == M) return few<M, V>(depth, a, a_row, a_depth, b, b_row, c, c_row, add);
  if constexpr (M > 1) fewer<M - 1, V>(rows, depth, a, a_row, a_depth, b, b_row, c, c_row, add);
}

template <int V>
void some(int64_t rows, int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b, int64_t b_row, float* c,
          int64_t c_row, bool add) {
  int64_t i = 0;
  for (; i + ROWS <= rows; i += ROWS) few<ROWS, V>(depth, a + i * a_row, a_row, a_depth, b, b_row, c + i * c_row, c_row, add);
  if (i < rows) fewer<ROWS - 1, V>(rows - i, depth, a + i * a_row, a_row, a_depth, b, b_row, c + i * c_row, c_row, add);
}

// C [rows, columns] (+)= A B; columns in whole vectors.
void multiply(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_depth, const float* b,
              int64_t b_row, float* c, int64_t c_row, bool add) {
  for (int64_t from = 0; from < depth; from += DEPTH) {
    const int64_t part = std::min(DEPTH, depth - from);
    const float *left = a + from * a_depth, *right = b + from * b_row;
    const bool adds = add || from;
    int64_t n = 0;
    for (; n + MOST * LANES <= columns; n += MOST * LANES)
      some<MOST>(rows, part, left, a_row, a_depth, right + n, b_row, c + n, c_row, adds);
    if constexpr (MOST > 2) {
      if (n + 3 * LANES <= columns) some<3>(rows, part, left, a_row, a_depth, right + n, b_row, c + n, c_row, adds), n += 3 * LANES;
      if (n + 2 * LANES <= columns) some<2>(rows, part, left, a_row, a_depth, right + n, b_row, c + n, c_row, adds), n += 2 * LANES;
    }
    if (n + LANES <= columns) some<1>(rows, part, left, a_row, a_depth, right + n, b_row, c + n, c_row, adds);
  }
}

// C [rows, panels] (+)= A [rows, K] B, where B is cut into panels.
void multiply_panels(int64_t rows, int64_t panels, int64_t K, const float* a, int64_t a_row, const float* b, float* c, int64_t c_row,
                     bool add) {
  for (int64_t p = 0; p < panels; ++p)
    multiply(rows, PANEL, K, a, a_row, 1, b + p * K * PANEL, PANEL, c + p * PANEL, c_row, add);
}

// Rows [n, K] made up with zeros to [n, KP].
void widened(Rows<const float> from, int64_t n, int64_t K, int64_t KP, float* to) {
  for (int64_t i = 0; i < n; ++i, to += KP) {
    std::memcpy(to, from[i], K * sizeof(float));
    std::fill(to + K, to + KP, 0.0f);
  }
}

// Rows [n, K] as columns of panels, of which the last one is made up with zeros.
void turned(Rows<const float> from, int64_t n, int64_t K, float* panels) {
  auto at = [&](int64_t column, int64_t k) { return panels + column / PANEL * K * PANEL + k * PANEL + column % PANEL; };
  int64_t i = 0;
  for (; i + 4 <= n; i += 4) {
    int64_t k = 0;
    for (; k + 4 <= K; k += 4) {
      auto quad = [&](int64_t row) { return *reinterpret_cast<const Quad*>(from[i + row] + k); };
      const Quad a = quad(0), b = quad(1), c = quad(2), d = quad(3);
      const Quad ab = PICKED(a, b, 0, 4, 1, 5), cd = PICKED(c, d, 0, 4, 1, 5);
      const Quad AB = PICKED(a, b, 2, 6, 3, 7), CD = PICKED(c, d, 2, 6, 3, 7);
      *reinterpret_cast<Quad*>(at(i, k)) = PICKED(ab, cd, 0, 1, 4, 5);
      *reinterpret_cast<Quad*>(at(i, k + 1)) = PICKED(ab, cd, 2, 3, 6, 7);
      *reinterpret_cast<Quad*>(at(i, k + 2)) = PICKED(AB, CD, 0, 1, 4, 5);
      *reinterpret_cast<Quad*>(at(i, k + 3)) = PICKED(AB, CD, 2, 3, 6, 7);
    }
    for (int64_t row = i; row < i + 4; ++row)
      for (int64_t rest = k; rest < K; ++rest) *at(row, rest) = from[row][rest];
  }
  for (; i < rounded(n, PANEL); ++i)
    for (int64_t k = 0; k < K; ++k) *at(i, k) = i < n ? from[i][k] : 0.0f;
}

inline int64_t kept_row(int64_t keys) { return ((keys + 15) / 16 | 1) * 16; }  // rows that do not share a set of the cache
int64_t kept_of_head(const Sizes& m) {
  int64_t all = rounded(m.queries, 16);  // factors
  for (int64_t n = 0; n < blocks_of(m); ++n) all += Block(m, n).queries() * kept_row(Block(m, n).keys);
  return all;
}

// A row's probabilities but for the factor that is returned, in `to`, which may be where its scores are; zero of keys not seen.
float softmax(const float* scores, Seen seen, int64_t keys, float* to) {
  scores += seen.first;
  std::fill(to, to + seen.first, 0.0f);
  float* out = to + seen.first;
  const int64_t many = seen.last - seen.first, whole = many / LANES * LANES;
  Vector most[SUMS];
  for (Vector& each : most) each = Vector{} - INFINITY;
  int64_t at = 0;
  for (; at + SUMS * LANES <= whole; at += SUMS * LANES)
    for (int i = 0; i < SUMS; ++i) most[i] = larger(load(scores + at + i * LANES), most[i]);
  for (; at < whole; at += LANES) most[0] = larger(load(scores + at), most[0]);
  float largest = -INFINITY;
  for (; at < many; ++at) largest = std::max(largest, scores[at]);
  for (const Vector& each : most)
    for (int lane = 0; lane < LANES; ++lane) largest = std::max(largest, each[lane]);
  Vector sum = {};
  for (int64_t j = 0; j < whole; j += LANES) {
    const Vector e = exponential(load(scores + j) - largest);
    store(out + j, e);
    sum += e;
  }
  float all = total(sum);
  for (int64_t j = whole; j < many; ++j) all += out[j] = std::exp(scores[j] - largest);
  std::fill(to + seen.last, to + keys, 0.0f);
  return all == 0.0f ? 0.0f : 1.0f / all;
}

typedef uint8_t Bytes __attribute__((vector_size(LANES), aligned(1), may_alias));
inline Whole chosen(const int8_t* bytes) {  // lanes whose byte is not zero: all bits set
  return __builtin_convertvector(*reinterpret_cast<const Bytes*>(bytes), Whole) != 0;
}

// What dropout leaves of a row, in `to`.
void dropped(const float* from, const int8_t* keep, float scale, int64_t keys, float* to) {
  int64_t j = 0;
  for (; j + LANES <= keys; j += LANES)
    store(to + j, chosen(keep + j) ? load(from + j) * scale : Vector{});
  for (; j < keys; ++j) to[j] = keep[j] ? from[j] * scale : 0.0f;
}

// The gradient of a row's scores, in place of that of its probabilities times their factor; zero in the rest of the row.
void unsoftmaxed(float* gradient, const float* probability, float factor, int64_t keys, int64_t row) {
  Vector sums[SUMS] = {};
  int64_t j = 0;
  for (; j + SUMS * LANES <= keys; j += SUMS * LANES)
    for (int i = 0; i < SUMS; ++i) sums[i] += load(gradient + j + i * LANES) * load(probability + j + i * LANES);
  for (; j + LANES <= keys; j += LANES) sums[0] += load(gradient + j) * load(probability + j);
  for (int i = 1; i < SUMS; ++i) sums[0] += sums[i];
  float all = total(sums[0]);
  for (; j < keys; ++j) all += gradient[j] * probability[j];
  all *= factor;
  for (j = 0; j + LANES <= keys; j += LANES) store(gradient + j, (load(gradient + j) - all) * load(probability + j));
  for (; j < keys; ++j) gradient[j] = (gradient[j] - all) * probability[j];
  std::fill(gradient + keys, gradient + row, 0.0f);
}

struct Work : Layout<float> {  // of one thread
  const bool backward, scoring;  // scoring: scores are computed
  const int64_t KP = rounded(K, LANES), columns = rounded(m.keys, PANEL);
  const float scale = 1.0f / std::sqrt(static_cast<float>(K));
  float *keys_turned, *distances_turned, *values_turned, *keys, *values, *distances;
  float *biases, *content, *position, *scores, *probabilities, *factors, *mixed;
  float *of_queries, *of_values, *of_keys, *of_distances, *of_biases;

  Work(const Sizes& sizes, const Operands<float>& operands, bool is_backward, bool is_scoring, Arena& arena)
      : Layout{sizes, operands}, backward(is_backward), scoring(is_scoring) {
    lay(arena);
    arena.open();
    lay(arena);
  }
  void lay(Arena& arena) {
    if (scoring) keys_turned = arena.take<float>(columns * K), distances_turned = arena.take<float>(columns * K);
    biases = arena.take<float>(2 * KP), factors = arena.take<float>(m.queries);
    content = arena.take<float>(QUERIES * KP), position = arena.take<float>(QUERIES * KP), mixed = arena.take<float>(QUERIES * KP);
    scores = arena.take<float>((QUERIES + 1) * (columns + GAP));
    if (!backward) {
      values = arena.take<float>(m.keys * KP);
      return;
    }
    values_turned = arena.take<float>(columns * K);
    keys = arena.take<float>(m.keys * KP), of_keys = arena.take<float>(m.keys * KP), of_values = arena.take<float>(m.keys * KP);
    distances = arena.take<float>(m.keys * KP), of_distances = arena.take<float>(m.keys * KP), of_biases = arena.take<float>(2 * KP);
    probabilities = arena.take<float>(QUERIES * kept_row(m.keys)), of_queries = arena.take<float>(QUERIES * KP);
  }

  void take_head(int64_t h) {
    widened({of.content_bias + h * K}, 1, K, KP, biases), widened({of.position_bias + h * K}, 1, K, KP, biases + KP);
    if (scoring) turned(distances_of(h), m.keys, K, distances_turned);
    if (backward) widened(distances_of(h), m.keys, K, KP, distances);
  }
  void take_keys(Pair at) {
    if (scoring) turned(keys_of(at, KEY), m.keys, K, keys_turned);
    if (backward) {
      turned(keys_of(at, VALUE), m.keys, K, values_turned);
      widened(keys_of(at, KEY), m.keys, K, KP, keys);
    } else {
      widened(keys_of(at, VALUE), m.keys, K, KP, values);
    }
  }
  void take_queries(Pair at, const Block& block) {
    widened(queries_of(at, block.first), block.queries(), K, KP, content);
    for (int64_t i = 0; i < block.queries() * KP; i += LANES) {
      const Vector q = load(content + i);
      store(content + i, (q + load(biases + i % KP)) * scale), store(position + i, (q + load(biases + KP + i % KP)) * scale);
    }
  }

  struct Scores {
    float* first;
    int64_t apart;

    float* operator[](int64_t i) const { return first + i * apart; }
  };
  // Scores of a block as rows that begin one distance later each.
  Scores shifted(const Block& block) const { return {scores + block.queries() - 1, row_of(block) - 1}; }
  int64_t row_of(const Block& block) const { return rounded(block.keys, PANEL) + GAP; }

  void attend(int64_t b, const Block& block, Scores to, float* factor) {  // probabilities, and a factor of each row
    const int64_t t = block.queries(), panels = rounded(block.keys, PANEL) / PANEL;
    multiply_panels(t, panels, K, position, KP, distances_turned + (m.queries - block.stop) * K, scores, row_of(block), false);
    const Scores found = shifted(block);
    multiply_panels(t, panels, K, content, KP, keys_turned, found.first, found.apart, true);
    const uint8_t* masked = of.masked + ((m.masks > 1 ? b : 0) * m.queries + block.first) * m.keys;
    for (int64_t i = 0; i < t; ++i) factor[i] = softmax(found[i], Seen(masked + i * m.keys, block.keys), block.keys, to[i]);
  }
  Scores left(Scores weights, Pair at, const Block& block, Scores to) const {  // by dropout, in `to` unless that is all
    if (!of.keep) return weights;
    for (int64_t i = 0; i < block.queries(); ++i)
      dropped(weights[i], keep(at, block.first + i), m.kept_scale, block.keys, to[i]);
    return to;
  }
  // Rows of `mixed` by their factors.
  void scaled(int64_t t, const float* factor) {
    for (int64_t i = 0; i < t; ++i)
      for (int64_t k = i * KP; k < (i + 1) * KP; k += LANES) store(mixed + k, load(mixed + k) * factor[i]);
  }

  // What is kept of a pair: factors of all its rows, then the rows of each block.
  float* kept_rows(float* kept) const { return kept ? kept + rounded(m.queries, 16) : nullptr; }

  void forward(Pair at, float* out, float* kept) {
    take_keys(at);
    float* rows = kept_rows(kept);
    for (int64_t n = 0; n < blocks_of(m); ++n) {
      const Block block(m, n);
      const int64_t t = block.queries();
      const Scores p = rows ? Scores{rows, kept_row(block.keys)} : shifted(block);
      float* factor = (kept ? kept : factors) + block.first;
      take_queries(at, block);
      attend(at.b, block, p, factor);
      const Scores weights = left(p, at, block, shifted(block));
      multiply(t, KP, block.keys, weights.first, weights.apart, 1, values, KP, mixed, KP, false);
      scaled(t, factor);
      put(mixed, t, {out + in_mixed(at, block.first), apart()});
      if (rows) rows += t * p.apart;
    }
  }

  // Adds to the gradients of distances and biases, here; writes the others.
  void back(Pair at, float* kept, const float* of_out, const Gradients<float>& to) {
    take_keys(at);
    float* rows = kept_rows(kept);
    for (int64_t n = 0; n < blocks_of(m); ++n) {
      const Block block(m, n);
      const Scores p = {rows ? rows : probabilities, kept_row(block.keys)};
      float* factor = (kept ? kept : factors) + block.first;
      take_queries(at, block);
      if (!rows) attend(at.b, block, p, factor);
      back(at, block, p, factor, of_out, to);
      if (rows) rows += block.queries() * p.apart;
    }
    put(of_keys, m.keys, keys_in(to, at, KEY)), put(of_values, m.keys, keys_in(to, at, VALUE));
  }
  void back(Pair at, const Block& block, Scores p, const float* factor, const float* of_out, const Gradients<float>& to) {
    const int64_t t = block.queries(), row = row_of(block), far = m.queries - block.stop;
    const bool adds = block.stop < m.queries;  // the last one comes first and sees every key
    const Scores found = shifted(block);
    widened({of_out + in_mixed(at, block.first), apart()}, t, K, KP, mixed);
    scaled(t, factor);
    multiply_panels(t, rounded(block.keys, PANEL) / PANEL, K, mixed, KP, values_turned, found.first, found.apart, false);
    std::fill(scores, found.first, 0.0f);
    for (int64_t i = 0; i < t; ++i) {
      if (of.keep) dropped(found[i], keep(at, block.first + i), m.kept_scale, block.keys, found[i]);
      unsoftmaxed(found[i], p[i], factor[i], block.keys, found.apart);
    }
    const Scores weights = left(p, at, block, {probabilities, p.apart});
    multiply(block.keys, KP, t, weights.first, 1, weights.apart, mixed, KP, of_values, KP, adds);
    multiply(block.keys, KP, t, found.first, 1, found.apart, content, KP, of_keys, KP, adds);
    multiply(block.keys, KP, t, scores, 1, row, position, KP, of_distances + far * KP, KP, true);
    auto add = [&](float* of_bias, bool adds) {
      for (int64_t i = 0; i < t * KP; i += LANES) {
        const Vector value = load(mixed + i) * scale;
        store(of_bias + i % KP, load(of_bias + i % KP) + value);
        store(of_queries + i, adds ? load(of_queries + i) + value : value);
      }
    };
    multiply(t, KP, block.keys, found.first, found.apart, 1, keys, KP, mixed, KP, false);
    add(of_biases, false);
    multiply(t, KP, block.keys, scores, row, 1, distances + far * KP, KP, mixed, KP, false);
    add(of_biases + KP, true);
    put(of_queries, t, queries_in(to, at, block.first));
  }
  void put(const float* from, int64_t n, Rows<float> to) const {
    for (int64_t i = 0; i < n; ++i) std::memcpy(to[i], from + i * KP, K * sizeof(float));
  }
};

}  // namespace

// Of what `attend` keeps.
extern "C" int64_t kept_elements(const Sizes* m) { return m->sequences * m->heads * kept_of_head(*m); }

// Into `out` [B, T, H, K], and where it is not null into `kept` probabilities.
extern "C" void attend(const Sizes* sizes, const Operands<float>* of, float* out, float* kept) {
  const Sizes& m = *sizes;
  const int64_t each = kept_of_head(m);
#pragma omp parallel num_threads(m.threads)
  {
    Arena arena;
    Work work(m, *of, false, true, arena);
    const Share mine = share(m.heads * m.sequences);
    for (int64_t i = mine.first; i < mine.last; ++i) {
      const Pair at = {i % m.sequences, i / m.sequences};
      if (i == mine.first || at.b == 0) work.take_head(at.h);
      work.forward(at, out, kept ? kept + i * each : nullptr);
    }
  }
}

// Gradients of what `of` names, given that of what `attend` wrote into `out`, and what it kept, or null: it is computed again.
extern "C" void attend_backward(const Sizes* sizes, const Operands<float>* of, float* kept, const float* of_out, const Gradients<float>* to) {
  const Sizes& m = *sizes;
  const int64_t K = m.head, each = (m.keys + 2) * K, kept_each = kept_of_head(m);
  std::vector<float> parts;  // of heads that several threads share: of each thread its first and its last
  std::vector<int64_t> owners;
#pragma omp parallel num_threads(m.threads)
  {
#pragma omp single
    {
      owners.assign(2 * omp_get_num_threads(), -1);
      if (m.heads % omp_get_num_threads()) parts.resize(owners.size() * each);
    }
    Arena arena;
    Work work(m, *of, true, !kept, arena);
    const Share mine = share(m.heads * m.sequences);
    auto put = [&](float* distances, int64_t apart, float* content, float* position) {
      for (int64_t s = 0; s < m.keys; ++s) std::memcpy(distances + s * apart, work.of_distances + s * work.KP, K * sizeof(float));
      std::memcpy(content, work.of_biases, K * sizeof(float));
      std::memcpy(position, work.of_biases + work.KP, K * sizeof(float));
    };
    auto finish = [&](int64_t h) {
      const bool begun = h * m.sequences >= mine.first;
      if (begun && (h + 1) * m.sequences <= mine.last)
        return put(to->distances + h * K, m.heads * K, to->content_bias + h * K, to->position_bias + h * K);
      const int64_t place = 2 * omp_get_thread_num() + begun;
      owners[place] = h;
      float* part = parts.data() + place * each;
      put(part, K, part + m.keys * K, part + (m.keys + 1) * K);
    };
    for (int64_t i = mine.first; i < mine.last; ++i) {
      const Pair at = {i % m.sequences, i / m.sequences};
      if (i == mine.first || at.b == 0) {
        work.take_head(at.h);
        std::fill(work.of_distances, work.of_distances + m.keys * work.KP, 0.0f);
        std::fill(work.of_biases, work.of_biases + 2 * work.KP, 0.0f);
      }
      work.back(at, kept ? kept + i * kept_each : nullptr, of_out, *to);
      if (i + 1 == mine.last || at.b + 1 == m.sequences) finish(at.h);
    }
#pragma omp barrier
#pragma omp for
    for (int64_t h = 0; h < m.heads; ++h) {
      bool first = true;
      for (size_t place = 0; place < owners.size(); ++place) {
        if (owners[place] != h) continue;
        const float* part = parts.data() + place * each;
        auto add = [&](const float* from, float* sum) {
          for (int64_t k = 0; k < K; ++k) sum[k] = first ? from[k] : sum[k] + from[k];
        };
        for (int64_t s = 0; s < m.keys; ++s) add(part + s * K, to->distances + (s * m.heads + h) * K);
        add(part + m.keys * K, to->content_bias + h * K);
        add(part + (m.keys + 1) * K, to->position_bias + h * K);
        first = false;
      }
    }
  }
}
