// Runs the threadgroups of a kernel on the CPU, one at a time. Each thread of a group is a fibre on the
// calling OS thread, which runs to its next synchronization point.
//
//   seed 0          fibres in the order in which they became ready, first those of the lowest index
//   odd seeds       a random ready fibre each time
//   other seeds     a random priority per fibre: some run as far ahead as they can
//
// Reported as an error: a barrier or SIMD operation that some threads never reach, or reach at another line;
// an index out of a threadgroup array; and, if races are checked, conflicting accesses to threadgroup memory
// without a barrier between them. Threadgroup memory starts as NaN. Device memory is not checked.
#pragma once
#include "switch.h"
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace emu {

constexpr uint32_t WIDTH = 32;
constexpr uint32_t THREADS_MAX = 1024;
constexpr size_t STACK = 64 * 1024;

struct Options {
    uint64_t seed = 0;
    bool races = false;
};

// xorshift64*.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15ull + 0x2545f4914f6cdd1dull) {}
    uint64_t next()
    {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return state * 0x2545f4914f6cdd1dull;
    }
};

enum class State : uint8_t { ready, barrier, simd, done };

struct Fibre {
    void *stack_pointer;
    State state;
    int line;
    const char *op;
    uint64_t priority;
    uint32_t barriers, simd_barriers, simd_ops, arrays;
};

// Fibres that wait for each other.
struct Meeting {
    uint32_t waiting = 0;
    int line = 0;
};

struct Exchange {
    float value[WIDTH];
    float result;
    bool computed;
};

struct Access {
    uint32_t thread = UINT32_MAX, barriers = 0, simd_barriers = 0;
};

struct Shadow { // of an element of a threadgroup array
    Access write;
    std::vector<Access> reads; // since the last barrier of the reader
};

struct Array {
    std::vector<uint64_t> memory;
    std::vector<Shadow> shadow;
    size_t count = 0;
};

class Group {
public:
    uint32_t x = 0, y = 0, z = 0, current = 0;

    Group(uint32_t threads, const Options &options)
        : threads(threads), options(options), random(options.seed), fibres(threads), meetings(threads / WIDTH),
          exchanges(threads / WIDTH * 2)
    {
    }

    const std::string &run(void (*body)(const void *), const void *context)
    {
        this->body = body;
        this->context = context;
        arrays_used = 0;
        done = 0;
        whole = Meeting();
        ready.clear();
        head = 0;
        for (Meeting &m : meetings) m = Meeting();
        for (uint32_t i = 0; i < threads; ++i) {
            Fibre &f = fibres[i];
            f.state = State::ready;
            f.barriers = f.simd_barriers = f.simd_ops = f.arrays = 0;
            f.priority = options.seed == 0 ? 0 : random.next();
            f.stack_pointer = prepare_stack(stacks() + (i + 1) * STACK, entry);
            ready.push_back(i);
        }
        active() = this;
        if (pick()) exsa_emulated_switch(&scheduler, fibres[current].stack_pointer);
        active() = nullptr;
        if (error.empty() && done != threads) diverged();
        return error;
    }

    void barrier(int line)
    {
        wait(State::barrier, whole, 0, threads, "BARRIER", line);
        ++fibres[current].barriers;
    }

    void simd_barrier(int line)
    {
        const uint32_t simd = current / WIDTH;
        wait(State::simd, meetings[simd], simd * WIDTH, WIDTH, "SIMD_BARRIER", line);
        ++fibres[current].simd_barriers;
    }

    // Every lane gives a value; the first that goes on computes the result of all. Two sets of values: a lane
    // can be one operation ahead of another that has not read its result yet, never two.
    template <class F> float exchange(float value, const char *op, int line, F compute)
    {
        const uint32_t simd = current / WIDTH;
        Exchange &e = exchanges[simd * 2 + fibres[current].simd_ops++ % 2];
        e.value[current % WIDTH] = value;
        e.computed = false;
        wait(State::simd, meetings[simd], simd * WIDTH, WIDTH, op, line);
        if (!e.computed) {
            e.result = compute(e.value);
            e.computed = true;
        }
        return e.result;
    }

    // The next threadgroup array of this thread: all threads declare them in the same order.
    Array *array(size_t count, size_t bytes)
    {
        const uint32_t i = fibres[current].arrays++;
        if (i == arrays_used) {
            if (i == arrays.size()) arrays.emplace_back(new Array);
            Array &a = *arrays[i];
            a.memory.assign((count * bytes + 7) / 8, ~0ull);
            a.count = count;
            if (options.races) a.shadow.assign(count, Shadow());
            ++arrays_used;
        }
        return arrays[i].get();
    }

    void access(Array &a, size_t i, bool write)
    {
        if (i >= a.count) out_of_range(a, i);
        if (options.races) check_races(a, i, write);
    }

    [[noreturn]] void fail(const std::string &problem)
    {
        error = "group (" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + "): " + problem;
        void *unused;
        exsa_emulated_switch(&unused, scheduler);
        abort();
    }

    static Group *&active()
    {
        static thread_local Group *group = nullptr;
        return group;
    }

private:
    static char *stacks()
    {
        static thread_local std::unique_ptr<char[]> memory(new char[THREADS_MAX * STACK + 16]);
        return (char *)(((uintptr_t)memory.get() + 15) / 16 * 16);
    }

    static void entry()
    {
        Group *g = active();
        g->body(g->context);
        g->fibres[g->current].state = State::done;
        ++g->done;
        g->next();
        abort();
    }

    void wait(State state, Meeting &meeting, uint32_t first, uint32_t n, const char *op, int line)
    {
        Fibre &f = fibres[current];
        f.state = state;
        f.op = op;
        f.line = line;
        if (meeting.waiting == 0) {
            meeting.line = line;
        } else if (meeting.line != line) {
            fail("diverged: thread " + std::to_string(current) + " at " + op + " line " + std::to_string(line)
                 + ", others at line " + std::to_string(meeting.line));
        }
        if (++meeting.waiting == n) {
            meeting.waiting = 0;
            for (uint32_t i = first; i < first + n; ++i) {
                fibres[i].state = State::ready;
                ready.push_back(i);
            }
        }
        next();
    }

    // Goes on with the next ready fibre, or ends the group's run.
    void next()
    {
        const uint32_t me = current;
        if (pick()) {
            if (current != me) exsa_emulated_switch(&fibres[me].stack_pointer, fibres[current].stack_pointer);
        } else {
            exsa_emulated_switch(&fibres[me].stack_pointer, scheduler);
        }
    }

    bool pick()
    {
        if (head == ready.size()) return false;
        if (head >= 4096) {
            ready.erase(ready.begin(), ready.begin() + (ptrdiff_t)head);
            head = 0;
        }
        if (options.seed % 2) {
            std::swap(ready[head], ready[head + random.next() % (ready.size() - head)]);
        } else if (options.seed) {
            size_t best = head;
            for (size_t i = head; i < ready.size(); ++i) {
                if (fibres[ready[i]].priority > fibres[ready[best]].priority) best = i;
            }
            std::swap(ready[head], ready[best]);
        }
        current = ready[head++];
        return true;
    }

    void diverged()
    {
        std::map<std::string, uint32_t> places;
        for (const Fibre &f : fibres) {
            ++places[f.state == State::done ? "returned" : std::string(f.op) + " line " + std::to_string(f.line)];
        }
        error = "group (" + std::to_string(x) + "," + std::to_string(y) + "," + std::to_string(z) + "): diverged:";
        for (const auto &p : places) error += " " + std::to_string(p.second) + " threads at [" + p.first + "]";
    }

    [[noreturn]] void out_of_range(const Array &a, size_t i)
    {
        fail("thread " + std::to_string(current) + ": index " + std::to_string(i) + " of a threadgroup array of "
             + std::to_string(a.count));
    }

    void check_races(Array &a, size_t i, bool write)
    {
        const Fibre &f = fibres[current];
        const Access now{current, f.barriers, f.simd_barriers};
        Shadow &s = a.shadow[i];
        check_order(s.write, now, i, "written");
        if (write) {
            for (const Access &r : s.reads) check_order(r, now, i, "read");
            s.write = now;
        }
        if (!s.reads.empty() && s.reads.front().barriers != now.barriers) s.reads.clear();
        if (!write) s.reads.push_back(now);
    }

    void check_order(const Access &before, const Access &now, size_t i, const char *verb)
    {
        if (before.thread == UINT32_MAX || before.thread == now.thread || before.barriers != now.barriers) return;
        if (before.thread / WIDTH == now.thread / WIDTH && before.simd_barriers != now.simd_barriers) return;
        fail("race: threads " + std::to_string(before.thread) + " and " + std::to_string(now.thread) + " on element "
             + std::to_string(i) + ", " + verb + " before without a barrier between");
    }

    uint32_t threads;
    Options options;
    Random random;
    std::vector<Fibre> fibres;
    std::vector<Meeting> meetings;
    std::vector<Exchange> exchanges;
    Meeting whole;
    std::vector<uint32_t> ready;
    size_t head = 0;
    uint32_t done = 0, arrays_used = 0;
    std::vector<std::unique_ptr<Array>> arrays;
    void *scheduler = nullptr;
    void (*body)(const void *) = nullptr;
    const void *context = nullptr;
    std::string error;
};

inline Group &group() { return *Group::active(); }

// A pointer into threadgroup memory; its elements check each access.
template <class T> class Shared {
public:
    class Element {
    public:
        Element(Array &a, size_t i) : array(a), i(i) {}
        operator T() const
        {
            group().access(array, i, false);
            return data()[i];
        }
        Element &operator=(T v)
        {
            group().access(array, i, true);
            data()[i] = v;
            return *this;
        }
        Element &operator=(const Element &e) { return *this = (T)e; }

    private:
        T *data() const { return (T *)array.memory.data(); }
        Array &array;
        size_t i;
    };
    explicit Shared(size_t count) : array(group().array(count, sizeof(T))) {}
    Element operator[](size_t i) const { return Element(*array, i); }

private:
    Array *array;
};

// A kernel with its arguments as cuLaunchKernel takes them: a pointer to each.
struct Entry {
    const char *name;
    uint32_t threads;
    uint32_t arguments;
    void (*call)(void *const *args);
};

template <auto KERNEL_FUNCTION> struct Caller;
template <class... A, void (*KERNEL_FUNCTION)(A...)> struct Caller<KERNEL_FUNCTION> {
    static constexpr uint32_t arguments = sizeof...(A);
    static void call(void *const *args) { call(args, std::index_sequence_for<A...>()); }

private:
    template <size_t... I> static void call(void *const *args, std::index_sequence<I...>)
    {
        KERNEL_FUNCTION(*(typename std::remove_reference<A>::type *)args[I]...);
    }
};

// Runs all threadgroups; returns the error, empty if there is none.
inline std::string launch(const Entry &entry, const uint32_t *grid, const Options &options, void *const *args)
{
    struct Context {
        const Entry &entry;
        void *const *args;
    } context{entry, args};
    Group group(entry.threads, options);
    Random random(options.seed + 1);
    std::vector<uint64_t> order;
    const uint64_t n = (uint64_t)grid[0] * grid[1] * grid[2];
    if (options.seed) {
        for (uint64_t i = 0; i < n; ++i) {
            order.push_back(i);
            std::swap(order[i], order[random.next() % (i + 1)]);
        }
    }
    for (uint64_t i = 0; i < n; ++i) {
        const uint64_t g = options.seed ? order[i] : i;
        group.x = (uint32_t)(g % grid[0]);
        group.y = (uint32_t)(g / grid[0] % grid[1]);
        group.z = (uint32_t)(g / grid[0] / grid[1]);
        const std::string &error = group.run(
            [](const void *c) { ((const Context *)c)->entry.call(((const Context *)c)->args); }, &context);
        if (!error.empty()) return error;
    }
    return std::string();
}

} // namespace emu
