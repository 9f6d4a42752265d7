//! The thread on which the disk tier is changed: one, for as long as the store is open.
//!
//! A batch takes megabytes for a moment, and pages of the database for longer. On threads of the runtime, another one each
//! time, every one of them would keep its share for its next turn, which the allocator cannot give to the others: twice the
//! memory of what is stored. Bounds: one job at a time; whoever has another waits.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::{Builder, JoinHandle},
};

use tokio::task::spawn_blocking;

type Job = Box<dyn FnOnce() + Send>;

/// See the module documentation. The thread ends when this is gone, after the job that it is at.
pub(super) struct DiskThread {
    jobs: SyncSender<Job>,
    thread: JoinHandle<()>,
}

/// The job panicked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Panicked;

impl DiskThread {
    /// # Errors
    /// When the system has no thread to give.
    pub(super) fn start() -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(0);
        let thread = Builder::new()
            .name("hardtack-disk".to_owned())
            .spawn(move || work(&waiting))?;
        Ok(Self { jobs, thread })
    }

    /// Runs `job` there. It is done also where nobody waits for it any more.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Panicked> {
        let jobs = self.jobs.clone();
        // A thread of the runtime waits for the other one, for the sake of tests: their virtual time stands still while
        // one is busy, and only then.
        let waiting = spawn_blocking(move || {
            let (done, result) = sync_channel(1);
            let job: Job = Box::new(move || {
                // Whoever waited may be gone.
                let _ = done.send(job());
            });
            jobs.send(job).map_err(|_| Panicked)?;
            result.recv().map_err(|_| Panicked)
        });
        waiting.await.unwrap_or(Err(Panicked))
    }

    /// Ends the thread and waits for that.
    pub(super) async fn end(self) {
        let Self { jobs, thread } = self;
        drop(jobs);
        // Its panics were caught, and nothing is left to do about another.
        let _ = spawn_blocking(move || thread.join()).await;
    }
}

fn work(waiting: &Receiver<Job>) {
    for job in waiting {
        // Whoever waits for the job is told by its sender, which is gone.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}

#[cfg(test)]
mod tests {
    use super::{DiskThread, Panicked};

    #[tokio::test]
    async fn every_job_runs_on_the_one_thread_also_after_one_that_panicked() {
        let thread = DiskThread::start().unwrap();
        let name = || std::thread::current().id();
        let first = thread.run(name).await.unwrap();
        assert_ne!(first, name());
        assert_eq!(
            thread.run(|| panic!("as a test")).await,
            Err::<(), _>(Panicked)
        );
        assert_eq!(thread.run(name).await, Ok(first));
        thread.end().await;
    }

    #[tokio::test(start_paused = true)]
    async fn virtual_time_stands_still_while_a_job_runs() {
        let thread = DiskThread::start().unwrap();
        let began = tokio::time::Instant::now();
        // Long enough for a runtime with nothing to do to notice that, and to go to the next timer.
        let job = thread.run(|| (0..10_000).for_each(|_| std::thread::yield_now()));
        let limit = std::time::Duration::from_secs(3_600);
        assert_eq!(tokio::time::timeout(limit, job).await, Ok(Ok(())));
        assert_eq!(began.elapsed(), std::time::Duration::ZERO);
        thread.end().await;
    }
}
