//! What members wait for, in enums that are texts in JSON.
//!
//! Known are those that somebody judges by; a runtime has more, and newer ones more still.

use super::names::names;

names! {
    /// What members of a group do.
    pub enum GroupState {
        Unknown,
        Waiting = "waiting",
        Sleeping = "sleeping",
        Syscall = "syscall",
        Runnable = "runnable",
        Running = "running",
        Preempted = "preempted",
        /// The runtime itself found that nothing can end the wait.
        Leaked = "leaked",
    }
}

names! {
    /// Why members of a group wait.
    pub enum WaitReason {
        None,
        // Go, as its runtime names them.
        ChanSend = "chan send",
        ChanReceive = "chan receive",
        ChanSendNil = "chan send (nil chan)",
        ChanReceiveNil = "chan receive (nil chan)",
        /// Of Go's statement; the system call of that name reads the same, and the kind of the group tells them apart.
        Select = "select",
        SelectNoCases = "select (no cases)",
        Semacquire = "semacquire",
        GoMutexLock = "sync.Mutex.Lock",
        GoRwMutexRLock = "sync.RWMutex.RLock",
        GoRwMutexLock = "sync.RWMutex.Lock",
        GoWaitGroupWait = "sync.WaitGroup.Wait",
        GoCondWait = "sync.Cond.Wait",
        IoWait = "IO wait",
        /// Of Go, and of threads by the function that they sleep in.
        Sleep = "sleep",
        // Threads, by what the stack shows.
        Sleeping = "sleeping",
        MutexLock = "mutex lock",
        RwlockReadLock = "rwlock read lock",
        RwlockWriteLock = "rwlock write lock",
        LockWait = "lock wait",
        MonitorEnter = "monitor enter",
        ObjectWait = "object wait",
        InterpreterLock = "interpreter lock",
        ThreadJoin = "thread join",
        ThreadPark = "thread park",
        ConditionWait = "condition wait",
        SemaphoreWait = "semaphore wait",
        BarrierWait = "barrier wait",
        OnceWait = "once wait",
        FutureWait = "future wait",
        AtomicWait = "atomic wait",
        ChannelReceive = "channel receive",
        ChannelSend = "channel send",
        IdleWorker = "idle worker",
        // Threads, by the futex operation.
        Futex = "futex",
        FutexWait = "futex wait",
        FutexWaitBitset = "futex wait bitset",
        FutexLockPi = "futex lock pi",
        FutexWaitRequeuePi = "futex wait requeue pi",
        FutexWaitv = "futex waitv",
        // Threads, by the system call.
        Read = "read",
        Write = "write",
        Recv = "recv",
        Send = "send",
        Accept = "accept",
        Connect = "connect",
        Poll = "poll",
        EpollWait = "epoll_wait",
        IoGetevents = "io_getevents",
        IoUringEnter = "io_uring_enter",
        Nanosleep = "nanosleep",
        Pause = "pause",
        Sigwait = "sigwait",
        Wait4 = "wait4",
        Vfork = "vfork",
        Flock = "flock",
        FcntlLock = "fcntl lock",
        Msgrcv = "msgrcv",
        Msgsnd = "msgsnd",
        Semop = "semop",
        MqReceive = "mq_receive",
        MqSend = "mq_send",
        Open = "open",
        Fsync = "fsync",
        SystemCall = "system call",
        WaitTakenUpAgain = "wait taken up again",
    }
}

names! {
    /// The kind of thing that is waited on or for.
    pub enum ObjectKind {
        Unknown,
        Channel = "channel",
        Mutex = "mutex",
        Rwmutex = "rwmutex",
        Rwlock = "rwlock",
        Cond = "cond",
        Waitgroup = "waitgroup",
        Semaphore = "semaphore",
        Futex = "futex",
        /// The end of a thread.
        Thread = "thread",
    }
}

names! {
    /// What a thread that holds something does.
    pub enum HolderState {
        Unknown,
        Running = "running",
        Sleeping = "sleeping",
        Stopped = "stopped",
        /// Still known to the kernel.
        Ended = "ended",
        /// No thread of the target.
        Elsewhere = "elsewhere",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_its_text_in_json_and_back_known_or_not() {
        for (reason, text) in [
            (WaitReason::ChanSend, "chan send"),
            (WaitReason::None, ""),
            (WaitReason::Other("quantum wait".to_owned()), "quantum wait"),
        ] {
            let json = serde_json::to_string(&reason).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            let read: WaitReason = serde_json::from_str(&json).unwrap();
            assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&reason));
            assert_eq!(read, reason);
            assert_eq!(read, text);
        }
    }
}
