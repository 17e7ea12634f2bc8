// Threads that pile up at places with known names, memory that grows, and healthy twins of both, in C++20.
//
//   catching     ten threads a second wait for a condition inside a catch block, in a function template
//   coroutines   ten threads a second resume a coroutine that waits for a future that nobody fulfils
//   grow         a cache of strings takes 2.5 MiB a second and forgets nothing
//   healthy      a pool of 24 threads that takes jobs from a queue; a cache that is full
//
// Each thread of a pile keeps 64 KiB. At most 400 are started.
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstdio>
#include <cstring>
#include <future>
#include <map>
#include <memory>
#include <mutex>
#include <queue>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace shop {

using namespace std::chrono_literals;
constexpr int most = 400;

std::mutex mutex;
std::condition_variable answered;
bool answer = false;

template <typename T> class Quoter {
  public:
    explicit Quoter(std::size_t bytes) : scratch(bytes, 'q') {}

    // Waits where an exception is handled.
    __attribute__((noinline)) T ask_again(const std::string &what) {
        try {
            if (!answer)
                throw std::runtime_error(what);
        } catch (const std::runtime_error &error) {
            std::unique_lock lock(mutex);
            answered.wait(lock, [] { return answer; });
            scratch[0] = error.what()[0];
        }
        return static_cast<T>(scratch.size());
    }

  private:
    std::vector<char> scratch;
};

struct Task {
    struct promise_type {
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() { std::terminate(); }
    };
    std::coroutine_handle<promise_type> handle;
};

Task fetch_price(std::shared_future<int> reply) {
    auto scratch = std::make_unique<std::vector<char>>(64 << 10, 'p');
    (*scratch)[0] = static_cast<char>(reply.get());
    co_return;
}

template <typename Value> class Cache {
  public:
    __attribute__((noinline)) void remember(int key) { values.emplace(key, Value(1 << 14, 'c')); }
    __attribute__((noinline)) void replace(int key) { values[key % 16] = Value(1 << 14, 'c'); }

  private:
    std::map<int, Value> values;
};

class Pool {
  public:
    explicit Pool(int size) {
        for (int i = 0; i < size; i++)
            std::thread([this] { serve(); }).detach();
    }

    void put(int job) {
        std::lock_guard lock(gate);
        jobs.push(job);
        ready.notify_one();
    }

  private:
    void serve() {
        for (long sum = 0;;) {
            std::unique_lock lock(gate);
            ready.wait(lock, [this] { return !jobs.empty(); });
            sum += jobs.front();
            jobs.pop();
        }
    }

    std::mutex gate;
    std::condition_variable ready;
    std::queue<int> jobs;
};

} // namespace shop

int main(int argc, char **argv) {
    using namespace shop;
    const std::string mode = argc > 1 ? argv[1] : "";
    std::promise<int> never;
    std::shared_future<int> reply = never.get_future().share();
    Cache<std::string> cache;
    std::unique_ptr<Pool> pool;
    if (mode == "healthy")
        pool = std::make_unique<Pool>(24);
    std::puts("ready");
    std::fflush(stdout);
    for (int i = 0; i < 4000; i++) {
        if (mode == "catching" && i < most)
            std::thread([] { Quoter<long>(64 << 10).ask_again("no answer yet, and there will be none"); }).detach();
        else if (mode == "coroutines" && i < most)
            std::thread([reply] { fetch_price(reply).handle.resume(); }).detach();
        else if (mode == "grow")
            for (int n = 0; n < 16 && i < most; n++)
                cache.remember(i * 16 + n);
        else if (mode == "healthy") {
            pool->put(i);
            cache.replace(i);
        }
        std::this_thread::sleep_for(100ms);
    }
}
