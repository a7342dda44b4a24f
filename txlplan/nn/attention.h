// What attention in fp32 and in bf16 share: operands and where they lie, blocks of queries, and what a thread works in. It is put
// before that code, after vectors.h.
//
// B sequences, T queries, M memory slots, S = M + T keys, H heads, K width of a head; N: of operands.

namespace {

struct Sizes {
  int64_t sequences, heads, queries, keys, head, masks, threads;  // masks: 1, or one a sequence
  float kept_scale;
};

template <class N>
struct Strided {  // by sequence, position and head
  const N* first;
  int64_t sequence, position, head;
};

template <class N>
struct Operands {
  const N* segment;                                  // [B, T, 3, H, K]: queries, keys and values
  Strided<N> memory_keys, memory_values, distances;  // [B, M, H, K], the last [1, S, H, K]: from the farthest, S - 1, to 0
  const float *content_bias, *position_bias;              // [H, K]
  const uint8_t* masked;                                  // [1 or B, T, S]
  const int8_t* keep;                                     // [B, H, T, S], or null
};

template <class N>
struct Gradients {  // as of Operands; of the memory [B, M, 2, H, K]
  N *segment, *memory, *distances;
  float *content_bias, *position_bias;
};

template <class T>
struct Rows {  // of a head: `many` from the first on, and then others
  T* first;
  int64_t apart = 0, many = INT64_MAX;
  T* then = nullptr;
  int64_t then_apart = 0;

  T* operator[](int64_t i) const { return i < many ? first + i * apart : then + (i - many) * then_apart; }
};

struct Pair {  // of a sequence and a head
  int64_t b, h;
};

enum { QUERY, KEY, VALUE };

template <class N>
struct Layout {
  const Sizes& m;
  const Operands<N>& of;
  const int64_t K = m.head, memory = m.keys - m.queries;

  int64_t apart() const { return m.heads * K; }
  int64_t in_segment(Pair at, int which, int64_t t) const { return ((at.b * m.queries + t) * 3 + which) * apart() + at.h * K; }
  int64_t in_mixed(Pair at, int64_t t) const { return (at.b * m.queries + t) * apart() + at.h * K; }
  const int8_t* keep(Pair at, int64_t t) const { return of.keep + ((at.b * m.heads + at.h) * m.queries + t) * m.keys; }

  Rows<const N> queries_of(Pair at, int64_t t) const { return {of.segment + in_segment(at, QUERY, t), 3 * apart()}; }
  Rows<const N> keys_of(Pair at, int which) const {  // or values
    const Strided<N>& kept = which == KEY ? of.memory_keys : of.memory_values;
    const N* first = kept.first + at.b * kept.sequence + at.h * kept.head;
    return {first, kept.position, memory, of.segment + in_segment(at, which, 0), 3 * apart()};
  }
  Rows<const N> distances_of(int64_t h) const { return {of.distances.first + h * of.distances.head, of.distances.position}; }
  Rows<N> queries_in(const Gradients<N>& to, Pair at, int64_t t) const { return {to.segment + in_segment(at, QUERY, t), 3 * apart()}; }
  Rows<N> keys_in(const Gradients<N>& to, Pair at, int which) const {
    N* first = to.memory + (at.b * memory * 2 + which - KEY) * apart() + at.h * K;
    return {first, 2 * apart(), memory, to.segment + in_segment(at, which, 0), 3 * apart()};
  }
};

struct Block {  // queries [first, stop) and how many keys they see; the last one is number 0, and only the first may be smaller
  int64_t first, stop, keys;

  Block(const Sizes& m, int64_t number) {
    stop = m.queries - number * QUERIES;
    first = std::max<int64_t>(stop - QUERIES, 0);
    keys = m.keys - m.queries + stop;
  }
  int64_t queries() const { return stop - first; }
};

inline int64_t blocks_of(const Sizes& m) { return (m.queries + QUERIES - 1) / QUERIES; }

struct Seen {  // keys [first, last) of a row that are not masked: they lie together
  int64_t first = 0, last = 0;

  Seen() = default;
  Seen(const uint8_t* masked, int64_t keys) : last(keys) {
    while (last > 0 && masked[last - 1]) --last;
    while (first < last && masked[first]) ++first;
  }
};

}  // namespace
