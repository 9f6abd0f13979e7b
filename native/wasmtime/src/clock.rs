//! Increments an engine's epoch while guests run: then they let others have their thread, and can be ended. And wakes who
//! waits for a moment meanwhile: a timer of the runtime's for each request would wake its other threads each time.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{
    AtomicBool, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use wasmtime::{Engine, Store, UpdateDeadline};

/// Between two increments. A guest computes for so long, as a rule, before others have a turn.
const TICK: Duration = Duration::from_millis(10);

/// Its thread sleeps while no guest runs: so does an idle app's process.
pub struct Clock {
    running: AtomicUsize,
    /// How often something began to run.
    begun: AtomicUsize,
    asleep: AtomicBool,
    lock: Mutex<()>,
    wake: Condvar,
    alarms: Mutex<Alarms>,
    /// Those that there have been.
    alarm: AtomicU64,
}

/// By their moments and numbers.
type Alarms = BTreeMap<(Instant, u64), Waker>;

impl Clock {
    pub fn start(engine: &Engine) -> Arc<Self> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
            alarms: Mutex::default(),
            alarm: AtomicU64::new(0),
        });
        let (ours, engine) = (clock.clone(), engine.clone());
        thread::spawn(move || ours.tick(&engine));
        clock
    }

    /// For as long as a guest runs.
    pub fn running(self: &Arc<Self>) -> Running {
        self.running.fetch_add(1, SeqCst);
        self.begun.fetch_add(1, SeqCst);
        if self.asleep.load(SeqCst) {
            let _held = self.lock.lock();
            self.wake.notify_one();
        }
        Running(self.clone())
    }

    /// Wait until a moment, or up to two ticks longer.
    pub fn alarm(self: &Arc<Self>, at: Instant) -> Alarm {
        Alarm { key: (at, self.alarm.fetch_add(1, SeqCst)), set: false, running: self.running() }
    }

    /// What a future gives; ``None``: it took too long.
    pub async fn within<T>(self: &Arc<Self>, most: Option<Duration>, what: impl Future<Output = T>) -> Option<T> {
        let Some(most) = most else { return Some(what.await) };
        tokio::select! {
            biased;
            it = what => Some(it),
            () = self.alarm(Instant::now() + most) => None,
        }
    }

    fn alarms(&self) -> MutexGuard<'_, Alarms> {
        self.alarms.lock().expect("nobody panics with it")
    }

    fn ring(&self) {
        let due = {
            let mut alarms = self.alarms();
            let later = alarms.split_off(&(Instant::now(), u64::MAX));
            std::mem::replace(&mut *alarms, later)
        };
        due.into_values().for_each(Waker::wake);
    }

    fn tick(&self, engine: &Engine) {
        let mut seen = 0;
        loop {
            let begun = self.begun.load(SeqCst);
            if begun == seen && self.running.load(SeqCst) == 0 {
                self.sleep(seen);
            }
            seen = self.begun.load(SeqCst);
            thread::sleep(TICK);
            engine.increment_epoch();
            self.ring();
        }
    }

    fn sleep(&self, seen: usize) {
        let mut held = self.lock.lock().expect("nobody panics with it");
        self.asleep.store(true, SeqCst);
        while self.begun.load(SeqCst) == seen {
            held = self.wake.wait(held).expect("nobody panics with it");
        }
        self.asleep.store(false, SeqCst);
    }
}

/// A guest that computes lets others have its thread with each tick after the next.
pub fn let_others_run<T: 'static>(store: &mut Store<T>, computing: &Computing) {
    let turns = computing.turns.clone();
    store.set_epoch_deadline(1); // of a new one it has passed
    store.epoch_deadline_callback(move |_| {
        turns.fetch_add(1, Relaxed);
        Ok(UpdateDeadline::Yield(1))
    });
}

/// Whether a guest computes all the time: then it is polled, and has given others a turn.
#[derive(Default)]
pub struct Computing {
    turns: Arc<AtomicU64>,
    seen: u64,
    since: Option<Instant>,
}

impl Computing {
    /// For one that has the same guest, and looks at another place.
    pub fn another(&self) -> Self {
        Self { turns: self.turns.clone(), seen: self.turns.load(Relaxed), since: None }
    }

    /// To be asked each time that the guest is pending: for how long it computes; ``None``: it waits for something.
    pub fn time(&mut self) -> Option<Duration> {
        let turns = self.turns.load(Relaxed);
        if turns == self.seen {
            self.since = None;
            return None;
        }
        self.seen = turns;
        Some(self.since.get_or_insert_with(Instant::now).elapsed())
    }
}

pub struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

pub struct Alarm {
    key: (Instant, u64),
    set: bool,
    running: Running,
}

impl Alarm {
    /// Wait for another moment.
    pub fn reset(&mut self, at: Instant) {
        if at != self.key.0 {
            self.unset();
            self.key.0 = at;
        }
    }

    fn unset(&mut self) {
        if self.set {
            self.set = false;
            self.running.0.alarms().remove(&self.key);
        }
    }
}

impl Future for Alarm {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.key.0 {
            self.unset();
            return Poll::Ready(());
        }
        self.running.0.alarms().insert(self.key, cx.waker().clone());
        self.set = true;
        Poll::Pending
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.unset();
    }
}
