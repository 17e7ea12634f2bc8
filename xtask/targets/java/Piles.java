// Threads that pile up, memory that grows, and a healthy twin of both, on the Java virtual machine.
//
//   leak      ten threads a second wait for a lock that is never given back
//   grow      2.5 MiB a second are remembered
//   healthy   a pool of 24 threads that takes jobs; a cache that is full
//
// At most 400 threads are started.
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.locks.ReentrantLock;

public class Piles {
    static final ReentrantLock ledger = new ReentrantLock();
    static final List<byte[]> all = new ArrayList<>();
    static volatile long sink;

    static void bookOrder() {
        ledger.lock();
        try {
            sink++;
        } finally {
            ledger.unlock();
        }
    }

    static void remember() {
        byte[] page = new byte[256 << 10];
        page[0] = 1;
        all.add(page);
    }

    public static void main(String[] arguments) throws Exception {
        String mode = arguments.length > 0 ? arguments[0] : "";
        ledger.lock();
        ExecutorService pool = mode.equals("healthy") ? Executors.newFixedThreadPool(24) : null;
        System.out.println("ready");
        for (int turn = 0; turn < 4000; turn++) {
            if (mode.equals("leak") && turn < 400) {
                Thread thread = new Thread(Piles::bookOrder, "orders-" + turn);
                thread.setDaemon(true);
                thread.start();
            } else if (mode.equals("grow") && turn < 400) {
                remember();
            } else if (mode.equals("healthy")) {
                for (int job = 0; job < 4; job++)
                    pool.execute(() -> sink++);
            }
            Thread.sleep(100);
        }
    }
}
