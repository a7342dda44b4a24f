// C [M, N] = A [M, D] B [D, N], and what is added to it, of bf16 with sums in fp32: by tiles of AMX, for many rows, columns and
// depth. B is packed as its tiles are read, squares of STEP by STEP numbers, those of a column together; A by rows, or read
// where it is. B, C and what is added may be of fp32: B is rounded as it is packed.
//
// The depth is taken in pieces, of which a block of STEP rows of A fills most of a core's first cache; so many columns of B as
// the second holds pass by it, loaded past the first. Of several pieces the sums so far wait in fp32 beside B.
//
// Tiles are multiplied by a unit of its own. Meanwhile the rest of the core writes the square of C before, and packs the next
// block of A, a little with each square of the depth: what is due at once has to be short, 100 instructions or so, or the unit
// waits for its next tiles. B is packed at once: done meanwhile too, it took no less time, and twice the room.

#ifndef TILES
#error "this CPU, or the compiler for it, has no tiles"
#endif

namespace {

constexpr int64_t TILE = 16 * STEP, SQUARE = 2 * TILE;  // numbers; of the sums in fp32 as well
constexpr int64_t PIECE = 16;               // squares of the depth
constexpr int64_t RIGHT = 512, SUMS = 256;  // squares of B at a time, half as many beside sums, and of those: one MiB each
constexpr int64_t UNIT = 8;                 // lines of A that are packed at once

template <class N>
struct Matrix {  // one of the distances is 1
  const N* first;
  int64_t row, column, rows, columns;
};

struct Product {
  const bfloat16* left;
  const void *right, *added;  // added: or null
  void* out;
  const bfloat16* positive;  // [M, N], or null: where it is 0 or below, C is 0
  int64_t left_row, left_column, right_row, right_column, added_row, out_row, positive_row;
  int64_t rows, columns, depth, threads;
  bool right_is_wide, added_is_wide, out_is_wide;  // of fp32
  bool relu;
};

inline int64_t squares(int64_t n) { return (n + STEP - 1) / STEP; }

inline __m512i numbers(const float* from, int64_t n) {  // rounded
  const __mmask32 there = first_of(n);
  return narrowed(_mm512_maskz_loadu_ps(there, from), _mm512_maskz_loadu_ps(there >> 16, from + LINE));
}

// Of a square's row, as rows lie, what is there.
template <bool WHOLE, class N>
inline __m512i line(const Matrix<N>& of, int64_t row, int64_t column) {
  const N* const from = of.first + row * of.row + column;
  if constexpr (WHOLE) return _mm512_loadu_si512(from);
  return row < of.rows ? numbers(from, of.columns - column) : _mm512_setzero_si512();
}
template <class N>
inline Matrix<N> turned(const Matrix<N>& of) {
  return {of.first, of.column, of.row, of.columns, of.rows};
}

inline void fetch(const bfloat16* from) { _mm_prefetch(from, _MM_HINT_T2); }  // to the second cache: the first is full
inline void fetch(const bfloat16* from, int64_t many, int64_t apart) {
  for (int64_t i = 0; i < many; ++i) fetch(from + i * apart);
}

// The quarters of a register, to where they belong.
inline void store_quarters(__m512i x, bfloat16* to, int64_t apart) {
  auto at = [=](int64_t i) { return reinterpret_cast<__m128i*>(to + i * apart); };
  _mm_store_si128(at(0), _mm512_castsi512_si128(x)), _mm_store_si128(at(1), _mm512_extracti32x4_epi32(x, 1));
  _mm_store_si128(at(2), _mm512_extracti32x4_epi32(x, 2)), _mm_store_si128(at(3), _mm512_extracti32x4_epi32(x, 3));
}

// Of a row of A so many lines.
template <bool WHOLE>
inline void pack_left(const Matrix<bfloat16>& a, int64_t m, int64_t d, int64_t many, bfloat16* to) {
  for (int64_t i = 0; i < many; ++i) _mm512_store_si512(to + i * STEP, line<WHOLE>(a, m, d + i * STEP));
}
// Of STEP rows of A 8 numbers each, where its columns lie together.
template <bool WHOLE>
inline void pack_left_turned(const Matrix<bfloat16>& columns, int64_t m, int64_t d, bfloat16* to, int64_t apart) {
  __m512i x[8], y[8];
  for (int64_t i = 0; i < 8; ++i) x[i] = line<WHOLE>(columns, d + i, m);
  for (int i = 0; i < 8; i += 2) y[i] = _mm512_unpacklo_epi16(x[i], x[i + 1]), y[i + 1] = _mm512_unpackhi_epi16(x[i], x[i + 1]);
  for (int i = 0; i < 8; i += 4)
    for (int k = 0; k < 2; ++k) {
      x[i + 2 * k] = _mm512_unpacklo_epi32(y[i + k], y[i + 2 + k]);
      x[i + 2 * k + 1] = _mm512_unpackhi_epi32(y[i + k], y[i + 2 + k]);
    }
  for (int k = 0; k < 4; ++k) {
    store_quarters(_mm512_unpacklo_epi64(x[k], x[k + 4]), to + 2 * k * apart, 8 * apart);
    store_quarters(_mm512_unpackhi_epi64(x[k], x[k + 4]), to + (2 * k + 1) * apart, 8 * apart);
  }
}

// A square of B: two tiles of 16 columns, in pairs of the depth.
template <class N>
inline void pack_right(const Matrix<N>& b, int64_t d, int64_t n, bfloat16* to) {
  if (b.column == 1) {
    for (int64_t i = 0; i < LINE; ++i) {
      __m512i first, second;
      paired(line<false>(b, d + 2 * i, n), line<false>(b, d + 2 * i + 1, n), first, second);
      _mm512_store_si512(to + i * STEP, first), _mm512_store_si512(to + TILE + i * STEP, second);
    }
    return;
  }
  const Matrix<N> columns = turned(b);
  for (int64_t half = 0; half < 2; ++half) {
    __m512i block[16];
    for (int64_t i = 0; i < LINE; ++i) block[i] = line<false>(columns, n + half * LINE + i, d);
    transpose(block);
    for (int64_t i = 0; i < LINE; ++i) _mm512_store_si512(to + half * TILE + i * STEP, block[i]);
  }
}

class Turns {  // so many things in so many turns, as evenly as can be
 public:
  void start(int64_t things, int64_t turns) { things_ = things, turns_ = turns, left_ = things, due_ = 0; }
  template <class Thing>
  void take(Thing thing) {
    if (left_)
      for (due_ += things_; due_ >= turns_ && left_; due_ -= turns_, --left_) thing();
  }
  template <class Thing>
  void rest(Thing thing) {
    for (; left_; --left_) thing();
  }

 private:
  int64_t things_ = 0, turns_ = 1, left_ = 0, due_ = 0;
};

struct Rows {  // of A, so far apart
  const bfloat16* first;
  int64_t apart;
};

class Left {  // packs a block of A; or has it read ahead, where it can stay where it is
 public:
  // Rows so far apart, and a block of them, lie all over the first cache; where they are 4096 bytes apart, one over the other.
  explicit Left(const Matrix<bfloat16>& a)
      : by_row(a.column == 1), lines(by_row ? a : turned(a)),
        stays(by_row && a.row % 1024 == 512 && a.columns % STEP == 0 && reinterpret_cast<uintptr_t>(a.first) % 64 == 0) {}

  Rows start(int64_t row, int64_t depth, int64_t deep, bfloat16* to, int64_t apart, int64_t turns) {
    m = row * STEP, d = depth * STEP, end = d + deep * STEP, i = 0, e = d;
    packed = to, packed_apart = apart;
    whole = m + STEP <= (by_row ? lines.rows : lines.columns) && end <= (by_row ? lines.columns : lines.rows);
    pace.start(by_row ? STEP * ((deep + UNIT - 1) / UNIT) : deep * STEP / UNIT, turns);
    return stays && whole ? Rows{lines.first + m * lines.row + d, lines.row} : Rows{to, apart};
  }
  void some() { pace.take([this] { one(); }); }
  void finish() { pace.rest([this] { one(); }); }

 private:
  void one() { whole ? one<true>() : one<false>(); }
  template <bool WHOLE>
  void one() {
    if (by_row) {
      const int64_t many = std::min(UNIT, (end - e) / STEP), ahead = WHOLE && stays ? 0 : 8;  // rows
      fetch(lines.first + (m + i + ahead) * lines.row + e, many, STEP);
      if (!WHOLE || !stays) pack_left<WHOLE>(lines, m + i, e, many, packed + i * packed_apart + e - d);
      if ((e += UNIT * STEP) >= end) e = d, ++i;
    } else {
      const int64_t far = e + 8 * UNIT, ahead = far < end ? far : d + far - end;  // or in the next block
      fetch(lines.first + ahead * lines.row + m + (ahead < e ? STEP : 0), UNIT, lines.row);
      pack_left_turned<WHOLE>(lines, m, e, packed + e - d, packed_apart);
      e += UNIT;
    }
  }

  const bool by_row;
  const Matrix<bfloat16> lines;
  const bool stays;
  bool whole;
  int64_t m, d, end, i, e, packed_apart;
  bfloat16* packed;
  Turns pace;
};

// C, a square, (+)= a block of A by so many squares of B, which are loaded past the first cache; with each of them the rest of
// the core does what there is to do meanwhile.
template <bool ADD, class Meanwhile>
inline void multiply(int64_t depth, Rows a, const bfloat16* b, float* c, Meanwhile meanwhile) {
  constexpr int64_t ROW = 64;  // bytes
  asm volatile("" ::: "memory");  // what tiles read is not known to be read
  if constexpr (ADD) {
    _tile_loadd(0, c, ROW); _tile_loadd(1, c + TILE / 2, ROW);
    _tile_loadd(2, c + TILE, ROW); _tile_loadd(3, c + 3 * TILE / 2, ROW);
  } else {
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
  }
  const bfloat16 *upper = a.first, *lower = a.first + LINE * a.apart;
  for (int64_t d = 0; d < depth; ++d, upper += STEP, lower += STEP, b += SQUARE) {
    _tile_stream_loadd(6, b, ROW); _tile_loadd(4, upper, 2 * a.apart);
    _tile_dpbf16ps(0, 4, 6);
    _tile_stream_loadd(7, b + TILE, ROW);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, lower, 2 * a.apart);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
    meanwhile();
  }
  _tile_stored(0, c, ROW); _tile_stored(1, c + TILE / 2, ROW);
  _tile_stored(2, c + TILE, ROW); _tile_stored(3, c + 3 * TILE / 2, ROW);
  asm volatile("" ::: "memory");
}

// Of bf16, as they are in fp32.
inline __m512 wide(__m256i half) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16)); }

// Of a square's row, of which the columns `there` are, what becomes of the sums.
inline void put(const Product& p, const float* sums, int64_t row, int64_t n, __mmask32 there) {
  __m512 x = _mm512_load_ps(sums), y = _mm512_load_ps(sums + TILE / 2);
  if (p.added && p.added_is_wide) {
    const float* more = static_cast<const float*>(p.added) + row * p.added_row + n;
    x = _mm512_add_ps(x, _mm512_maskz_loadu_ps(there, more));
    y = _mm512_add_ps(y, _mm512_maskz_loadu_ps(there >> 16, more + LINE));
  } else if (p.added) {
    const __m512i more = _mm512_maskz_loadu_epi16(there, static_cast<const bfloat16*>(p.added) + row * p.added_row + n);
    x = _mm512_add_ps(x, wide(_mm512_castsi512_si256(more))), y = _mm512_add_ps(y, wide(_mm512_extracti64x4_epi64(more, 1)));
  }
  if (p.relu) {  // which leaves what is no number
    const __m512 zero = _mm512_setzero_ps();
    x = _mm512_max_ps(zero, x), y = _mm512_max_ps(zero, y);
  }
  const int64_t at = row * p.out_row + n;
  if (p.out_is_wide) {
    float* out = static_cast<float*>(p.out) + at;
    if (there == ~0u && reinterpret_cast<uintptr_t>(out) % 64 == 0)
      _mm512_stream_ps(out, x), _mm512_stream_ps(out + LINE, y);  // past the caches: it is read after all others of its kind
    else
      _mm512_mask_storeu_ps(out, there, x), _mm512_mask_storeu_ps(out + LINE, there >> 16, y);
    return;
  }
  __m512i found = narrowed(x, y);
  if (p.positive) {
    const __m512i which = _mm512_maskz_loadu_epi16(there, p.positive + row * p.positive_row + n);
    const __mmask32 positive = _mm512_cmpgt_epi16_mask(which, _mm512_setzero_si512());
    const __m512i infinite = _mm512_set1_epi16(static_cast<int16_t>(0xff80));  // beyond it, with a sign: what is no number
    const __mmask32 none = _mm512_cmpgt_epu16_mask(which, infinite);
    found = _mm512_maskz_mov_epi16(positive | none, found);
  }
  _mm512_mask_storeu_epi16(static_cast<bfloat16*>(p.out) + at, there, found);
}

class Putting {  // a square of C, some lines at a time
 public:
  explicit Putting(const Product& product) : p(product) {}
  void start(const float* sums, int64_t m, int64_t n) {
    finish();
    c = sums, row = m, column = n, end = std::min(p.rows, m + STEP), there = first_of(p.columns - n);
  }
  void some(int64_t many) {
    for (; many && row < end; --many, ++row) {
      put(p, c, row, column, there);
      c += row % STEP == LINE - 1 ? TILE / 2 + LINE : LINE;
    }
  }
  void finish() { some(STEP); }

 private:
  const Product& p;
  const float* c;
  int64_t row = 0, column, end = 0;
  __mmask32 there;
};

class Asked {  // ahead, for a square of C: what is put there, and read for it, some lines at a time
 public:
  Asked(const Product& p, int64_t m, int64_t n, bool any)
      : out(static_cast<char*>(p.out) + (m * p.out_row + n) * (p.out_is_wide ? 4 : 2)),
        positive(p.positive ? p.positive + m * p.positive_row + n : nullptr), out_row(p.out_row * (p.out_is_wide ? 4 : 2)),
        positive_row(p.positive_row), left(any && !(p.out_is_wide && !p.added) ? std::min(p.rows - m, STEP) : 0) {}

  void some(int64_t many) {
    for (; many && left; --many, --left, out += out_row) {
      __builtin_prefetch(out, 1);
      if (positive) __builtin_prefetch(positive), positive += positive_row;
    }
  }

 private:
  const char* out;
  const bfloat16* positive;
  const int64_t out_row, positive_row;
  int64_t left;
};

class Work {  // of one thread
 public:
  Work(const Product& product, Share rows_, Share columns_)
      : p(product), rows(rows_), columns(columns_), depth(squares(p.depth)), pieces(parts(depth, PIECE)),
        piece(parts(depth, pieces)), panels(std::min((pieces > 1 ? RIGHT / 2 : RIGHT) / piece, columns.last - columns.first)),
        blocks(std::min(pieces > 1 && panels ? SUMS / panels : rows.last, rows.last - rows.first)), apart((piece + 1) * STEP),
        left({p.left, p.left_row, p.left_column, p.rows, p.depth}), putting(p) {
    if (panels && blocks) lay(), arena.open(), lay();
  }

  void run() {
    if (!panels || !blocks) return;
    Part part = at(columns.first, rows.first, 0);
    Rows x = left.start(part.m, 0, part.deep, a[0], apart, 1);
    for (bool more = true; more;) {
      Part next = part;
      more = step(next);
      x = multiply_all(part, more ? &next : nullptr, x);
      part = next;
    }
    putting.finish();
  }

 private:
  struct Part {  // of the product: rows and columns, and the depth, in STEPs
    int64_t m, down, n, across, d, deep;
  };

  static int64_t parts(int64_t whole, int64_t of) { return (whole + of - 1) / of; }

  void lay() {
    b = arena.take<bfloat16>(panels * piece * SQUARE);
    for (auto& each : a) each = arena.take<bfloat16>(STEP * apart);
    c = arena.take<float>((pieces > 1 ? blocks * panels : 2) * SQUARE);
  }

  Part at(int64_t n, int64_t m, int64_t d) const {
    return {m, std::min(blocks, rows.last - m), n, std::min(panels, columns.last - n), d, std::min(piece, depth - d)};
  }
  bool step(Part& part) const {  // to the next, if there is one
    if (part.d + piece < depth) part = at(part.n, part.m, part.d + piece);
    else if (part.m + blocks < rows.last) part = at(part.n, part.m + blocks, 0);
    else if (part.n + panels < columns.last) part = at(part.n + panels, rows.first, 0);
    else return false;
    return true;
  }

  void take_right(const Part& part) { p.right_is_wide ? take_right<float>(part) : take_right<bfloat16>(part); }
  template <class N>
  void take_right(const Part& part) {  // as it lies: along the depth, or across it
    const Matrix<N> right{static_cast<const N*>(p.right), p.right_row, p.right_column, p.depth, p.columns};
    const bool along = right.column != 1;
    for (int64_t d = 0; d < (along ? 1 : part.deep); ++d)
      for (int64_t j = 0; j < part.across; ++j)
        for (int64_t e = d; e < (along ? part.deep : d + 1); ++e)
          pack_right(right, (part.d + e) * STEP, (part.n + j) * STEP, b + (j * part.deep + e) * SQUARE);
  }

  // A part, whose first block of A is here, or will be: where that of the next is.
  Rows multiply_all(const Part& part, const Part* next, Rows x) {
    const int64_t turns = part.across * part.deep, lines = parts(STEP, part.deep);
    const bool last = part.d + part.deep == depth;
    left.finish();
    take_right(part);
    for (int64_t i = 0; i < part.down; ++i) {
      const Rows block = x;
      std::swap(a[0], a[1]);
      if (i + 1 < part.down) x = left.start(part.m + i + 1, part.d, part.deep, a[0], apart, turns);
      else if (next) x = left.start(next->m, next->d, next->deep, a[0], apart, turns);
      for (int64_t j = 0; j < part.across; ++j) {
        float* const sums = c + (pieces > 1 ? i * panels + j : j % 2) * SQUARE;
        const int64_t m = (part.m + i) * STEP, n = (part.n + j) * STEP;
        Asked asked(p, m, n, last);
        const float* later = sums + SQUARE;
        auto meanwhile = [&] {  // what is needed with the next square is read ahead: lines of C, and its sums so far
          putting.some(lines);
          asked.some(lines);
          if (part.d)
            for (int64_t k = 0; k < 2 * lines; ++k, later += LINE) _mm_prefetch(later, _MM_HINT_T0);
          left.some();
        };
        const bfloat16* const y = b + j * part.deep * SQUARE;
        part.d ? multiply<true>(part.deep, block, y, sums, meanwhile) : multiply<false>(part.deep, block, y, sums, meanwhile);
        if (last) putting.start(sums, m, n);
      }
      left.finish();
    }
    return x;
  }

  const Product& p;
  const Share rows, columns;            // in STEPs
  const int64_t depth, pieces, piece;   // the depth, how many pieces, and such a one, in squares
  const int64_t panels, blocks, apart;  // at a time: columns of B and rows of A, in STEPs; of packed rows of A
  Arena arena;
  bfloat16 *a[2], *b;  // packed; of A what is multiplied, and what comes next
  float* c;
  Left left;
  Putting putting;
};

// Of so many threads, how many share out rows (each with so many of the columns' threads): what they pack is least.
int64_t threads_down(int64_t threads, int64_t blocks, int64_t panels) {
  int64_t best = 1;
  auto packed = [&](int64_t down) { return (blocks + down - 1) / down + (panels + threads / down - 1) / (threads / down); };
  for (int64_t down = 2; down <= threads; ++down)
    if (threads % down == 0 && packed(down) < packed(best)) best = down;
  return best;
}

}  // namespace

extern "C" bool has_products() { return has_tiles; }

extern "C" void multiply(const Product* p) {
  const int64_t blocks = squares(p->rows), panels = squares(p->columns);
#pragma omp parallel num_threads(p->threads)
  {
    const int64_t threads = omp_get_num_threads(), thread = omp_get_thread_num();
    const int64_t down = threads_down(threads, blocks, panels), across = threads / down;
    Tiles tiles;
    Work(*p, share(blocks, down, thread / across), share(panels, across, thread % across)).run();
    _mm_sfence();  // before others read what went past the caches
  }
}
