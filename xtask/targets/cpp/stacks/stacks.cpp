// Threads of C++ that sleep where exceptions are on their way; says `ok` once all of them have begun to wait.
#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <functional>
#include <future>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <unistd.h>
#include <vector>

#define NOINLINE __attribute__((noinline))

static std::mutex mutex;
static std::condition_variable condition;
static std::atomic<int> waiting;
static volatile int sink;

NOINLINE int sleep_here() {
    std::unique_lock<std::mutex> lock(mutex);
    waiting++;
    condition.wait(lock, [] { return sink < 0; });
    return sink;
}

struct Waits {
    NOINLINE ~Waits() { sink += sleep_here(); }
};

NOINLINE void throws(int depth) {
    if (depth > 0)
        throws(depth - 1);
    else
        throw std::runtime_error("on its way");
    sink++;
}

NOINLINE void unwinds_through_a_destructor() {
    Waits waits;
    throws(3);
    sink++;
}

NOINLINE int in_a_destructor() {
    try {
        unwinds_through_a_destructor();
    } catch (const std::exception &) {
        sink++;
    }
    return sink;
}

NOINLINE int in_a_catch() {
    try {
        throws(2);
    } catch (const std::exception &error) {
        sink += sleep_here() + error.what()[0];
    }
    return sink;
}

template <typename T> struct Nested {
    template <typename F> NOINLINE int call(F function, T value) {
        int result = function(value);
        sink++;
        return result + 1;
    }
};

NOINLINE int in_a_template() {
    std::function<int(long)> function = [](long value) { return sleep_here() + int(value); };
    return Nested<long>().call(function, 7L) + 1;
}

NOINLINE int in_a_future() {
    std::promise<int> promise;
    auto future = promise.get_future();
    waiting++;
    sink += future.get();
    return sink;
}

int main() {
    std::vector<std::thread> threads;
    for (auto entry : {in_a_destructor, in_a_catch, in_a_template, in_a_future})
        threads.emplace_back([entry] { sink += entry(); });
    while (waiting < 4)
        usleep(1000);
    usleep(50000);
    puts("ok");
    fflush(stdout);
    for (auto &thread : threads)
        thread.join();
}
