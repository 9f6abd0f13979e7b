//! Increments an engine's epoch while guests run: then they let others have their thread, and can be ended.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use wasmtime::Engine;

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
}

impl Clock {
    pub fn start(engine: &Engine) -> Arc<Self> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            begun: AtomicUsize::new(0),
            asleep: AtomicBool::new(false),
            lock: Mutex::new(()),
            wake: Condvar::new(),
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

pub struct Running(Arc<Clock>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}
