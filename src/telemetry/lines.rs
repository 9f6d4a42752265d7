//! Log lines on their way to standard error: of a worker that has more to do, several in one write.
//!
//! A write of its own costs more than a line takes to make, and threads that write at the same time wait for each other. So
//! what a worker of the runtime logs waits until a worker has nothing to do, hence under little load for nothing. Lines
//! stay in order. Warnings and errors go out at once, and so does what other threads log: nobody tells when they have time.
//!
//! A worker that has nothing to do does not wait for another that writes, which may take long where standard error is a pipe
//! that nobody reads: who writes looks again when it is done.
//!
//! Bounds: [`WAITING_BYTES`], beyond which whoever logs writes; and after [`WAITING_MAX`] the next line takes along what
//! waits. A process that is killed takes what waits with it.

use std::{
    cell::Cell,
    io::{self, Stderr, Write},
    sync::{
        LazyLock, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// About fifty access events.
const WAITING_BYTES: usize = 16 * 1024;

/// As long as somebody who watches the log would not notice.
const WAITING_MAX: Duration = Duration::from_millis(100);

static STANDARD_ERROR: LazyLock<Lines<Stderr>> = LazyLock::new(|| Lines::new(io::stderr()));

thread_local! {
    /// Whether this thread is a worker, which says when it has nothing to do.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// To be called by each worker of the runtime whenever it has nothing to do: writes the log lines that wait.
pub fn before_parking() {
    IS_WORKER.set(true);
    STANDARD_ERROR.write_if_free();
}

/// Logging: to be kept until the process ends, when it writes the log lines that wait.
#[must_use]
#[derive(Debug)]
pub struct Logging(());

impl Logging {
    pub(super) const fn started() -> Self {
        Self(())
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        STANDARD_ERROR.write();
    }
}

/// Where the subscriber writes lines.
pub(super) struct StandardError;

/// One line on its way.
pub(super) struct Line {
    patience: Patience,
}

/// Whether a line may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Patience {
    Waits,
    AtOnce,
}

/// Lines that wait, and where they go.
struct Lines<W> {
    // Looked at by every worker that has nothing to do: no lock for that.
    has_any: AtomicBool,
    waiting: Mutex<Waiting>,
    out: Mutex<Out<W>>,
}

#[derive(Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// When the first of them came.
    since: Option<Instant>,
}

struct Out<W> {
    io: W,
    /// What is being written; empty otherwise.
    bytes: Vec<u8>,
}

impl<W: Write> Lines<W> {
    const fn new(io: W) -> Self {
        Self {
            has_any: AtomicBool::new(false),
            waiting: Mutex::new(Waiting {
                bytes: Vec::new(),
                since: None,
            }),
            out: Mutex::new(Out {
                io,
                bytes: Vec::new(),
            }),
        }
    }

    fn push(&self, line: &[u8], patience: Patience) {
        if self.keep(line) || patience == Patience::AtOnce {
            self.write();
        }
    }

    /// Whether what waits has waited for long, or is much.
    fn keep(&self, line: &[u8]) -> bool {
        let now = Instant::now();
        let mut waiting = lock(&self.waiting);
        waiting.bytes.extend_from_slice(line);
        self.has_any.store(true, Ordering::Release);
        let since = *waiting.since.get_or_insert(now);
        waiting.bytes.len() >= WAITING_BYTES || now.duration_since(since) >= WAITING_MAX
    }

    /// When it returns, every line that came before is written.
    fn write(&self) {
        // First, and for as long as it takes: what comes meanwhile stays behind this.
        self.write_to(&mut lock(&self.out));
        // Of those who found it taken.
        self.write_if_free();
    }

    /// Writes what waits, unless somebody does so, who then looks again. Twice at most: others log and write meanwhile.
    fn write_if_free(&self) {
        for _ in 0..2 {
            if !self.has_any.load(Ordering::Acquire) {
                return;
            }
            match self.out.try_lock() {
                Ok(mut out) => self.write_to(&mut out),
                Err(TryLockError::Poisoned(out)) => self.write_to(&mut out.into_inner()),
                Err(TryLockError::WouldBlock) => return,
            }
        }
    }

    fn write_to(&self, out: &mut Out<W>) {
        let mut waiting = lock(&self.waiting);
        std::mem::swap(&mut waiting.bytes, &mut out.bytes);
        waiting.since = None;
        self.has_any.store(false, Ordering::Release);
        drop(waiting);
        let Out { io, bytes } = out;
        // There is nobody to tell of a failure to tell.
        let _ = io.write_all(bytes);
        bytes.clear();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every section leaves what is inside consistent, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line {
            patience: Patience::AtOnce,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        // Levels are ordered by how much they say.
        let may_wait = IS_WORKER.get() && *metadata.level() >= Level::INFO;
        let patience = if may_wait {
            Patience::Waits
        } else {
            Patience::AtOnce
        };
        Line { patience }
    }
}

/// The subscriber writes a line with one call.
impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        STANDARD_ERROR.push(line, self.patience);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering},
            mpsc::{Receiver, Sender, channel},
        },
        thread,
        time::Duration,
    };

    use tokio::time::advance;

    use super::{
        Lines,
        Patience::{AtOnce, Waits},
        WAITING_BYTES, WAITING_MAX, lock,
    };

    /// What was written, by the writes that it took.
    #[derive(Default)]
    struct Writes(Vec<String>);

    impl std::io::Write for Writes {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.push(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn writes(lines: &Lines<Writes>) -> Vec<String> {
        lock(&lines.out).io.0.clone()
    }

    #[test]
    fn what_waits_is_written_at_once_and_in_order() {
        let lines = Lines::new(Writes::default());
        lines.push(b"one\n", Waits);
        lines.push(b"two\n", Waits);
        assert!(writes(&lines).is_empty());
        lines.write();
        lines.write();
        assert_eq!(writes(&lines), ["one\ntwo\n"]);
    }

    #[test]
    fn what_may_not_wait_takes_along_what_does() {
        let lines = Lines::new(Writes::default());
        lines.push(b"access\n", Waits);
        lines.push(b"warning\n", AtOnce);
        lines.push(b"error\n", AtOnce);
        assert_eq!(writes(&lines), ["access\nwarning\n", "error\n"]);
    }

    #[test]
    fn a_worker_that_never_rests_writes_when_much_waits() {
        let lines = Lines::new(Writes::default());
        let line = [b'a'; 100];
        let enough = WAITING_BYTES.div_ceil(line.len());
        for _ in 0..enough - 1 {
            lines.push(&line, Waits);
        }
        assert!(writes(&lines).is_empty());
        lines.push(&line, Waits);
        assert_eq!(writes(&lines).concat().len(), enough * line.len());
        lines.push(&line, Waits);
        assert_eq!(writes(&lines).len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_waits_for_long_while_lines_come() {
        let lines = Lines::new(Writes::default());
        lines.push(b"one\n", Waits);
        advance(WAITING_MAX / 2).await;
        lines.push(b"two\n", Waits);
        assert!(writes(&lines).is_empty());
        advance(WAITING_MAX / 2).await;
        lines.push(b"three\n", Waits);
        assert_eq!(writes(&lines), ["one\ntwo\nthree\n"]);
        lines.push(b"four\n", Waits);
        assert_eq!(writes(&lines).len(), 1);
    }

    /// Writes only when it is let, and says when it begins.
    struct Stalled {
        is_let: Receiver<()>,
        begun: Sender<()>,
        done: Arc<AtomicUsize>,
    }

    impl std::io::Write for Stalled {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.begun.send(()).unwrap();
            self.is_let.recv().unwrap();
            self.done.fetch_add(1, Ordering::SeqCst);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn who_has_nothing_to_do_does_not_wait_for_a_stalled_write_and_the_last_one_does() {
        let (let_write, is_let) = channel();
        let (begun, has_begun) = channel();
        let done = Arc::new(AtomicUsize::new(0));
        let lines = Lines::new(Stalled {
            is_let,
            begun,
            done: done.clone(),
        });
        thread::scope(|scope| {
            // Let go with this closure if it fails, and with it whoever waits.
            let let_write = let_write;
            let (lines, done) = (&lines, &done);
            scope.spawn(move || lines.push(b"one\n", AtOnce));
            has_begun.recv().unwrap();
            lines.push(b"two\n", Waits);
            let (rests, has_rested) = channel();
            scope.spawn(move || {
                lines.write_if_free();
                rests.send(()).unwrap();
            });
            let has_rested = has_rested.recv_timeout(Duration::from_secs(10));
            has_rested.expect("who has nothing to do does not wait");
            let (comes, last_comes) = channel();
            let last = scope.spawn(move || {
                comes.send(()).unwrap();
                lines.write();
                done.load(Ordering::SeqCst)
            });
            last_comes.recv().unwrap();
            let_write.send(()).unwrap();
            let_write.send(()).unwrap();
            assert_eq!(last.join().unwrap(), 2, "what was logged before is written");
        });
    }
}
