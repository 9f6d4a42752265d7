//! Copies an origin's body for whoever reads it, and keeps it whole for the store while that is affordable.
//!
//! Bounds: bytes kept by all fills together (a semaphore, one permit a byte, held until the last reader has them), bytes
//! of one body (`storage.max_object`), and time for a body that nobody reads.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::HeaderMap;
use http_body_util::BodyExt;
use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};

use super::{growing::Growing, trailers};
use crate::{
    store::StoreError,
    upstream::{BodyError, ResponseBody},
};

/// Permits are taken in steps, so that a body of unknown length does not pay for the largest.
const STEP_BYTES: u64 = 64 * 1024;
/// A fill survives its clients, but a body that nobody reads has this long to end: an origin that drips must not hold a
/// permit of its upstream for the sake of the store alone.
const UNREAD_TIMEOUT: Duration = Duration::from_secs(60);
/// How often a copy looks whether anybody still reads.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// What a fill keeps of the body it copies.
pub(crate) struct Keeping<'a> {
    growing: &'a Arc<Growing>,
    budget: &'a Arc<Semaphore>,
    max_object_bytes: u64,
    reserved_bytes: u64,
    taken_bytes: u64,
    unread_since: Option<Instant>,
}

/// A body that was copied to its end.
#[derive(Debug)]
pub(crate) enum Whole {
    /// It is here, for the store.
    Kept(Bytes),
    /// It was too large to keep, or is not to be kept.
    PassedOn,
}

impl Whole {
    /// What a body comes to that only the close of its connection delimits, and whose stored predecessor, with the same
    /// strong validator, has `least_bytes`. An empty one is more likely a crash than an answer: it is not for the store.
    pub(crate) fn until_close(self, least_bytes: u64) -> Result<Self, CopyError> {
        match self {
            Self::Kept(body) if (body.len() as u64) < least_bytes => Err(CopyError::Short),
            Self::Kept(body) if body.is_empty() => Ok(Self::PassedOn),
            whole => Ok(whole),
        }
    }
}

/// Why a copy ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CopyError {
    /// The origin broke off.
    #[error("the origin broke off in mid-body: {0}")]
    Origin(BodyError),
    /// The connection was closed in order, but the validator is that of a longer body.
    #[error("the origin closed before the end of a body that is known to be longer")]
    Short,
    /// The origin sent more or less than it said it would.
    #[error("the rest has not the length it should have")]
    Length,
    /// The stored bytes could not be read.
    #[error("a stored part could not be read: {0}")]
    Stored(#[from] StoreError),
    /// Nobody reads what cannot be stored, or has read for too long.
    #[error("nobody reads it")]
    Unread,
}

/// A body is too large, or the budget is spent.
#[derive(Debug)]
pub(crate) struct TooLarge;

impl<'a> Keeping<'a> {
    /// Nothing kept yet.
    pub(crate) const fn new(
        growing: &'a Arc<Growing>,
        budget: &'a Arc<Semaphore>,
        max_object_bytes: u64,
    ) -> Self {
        Self {
            growing,
            budget,
            max_object_bytes,
            reserved_bytes: 0,
            taken_bytes: 0,
            unread_since: None,
        }
    }

    /// Reserves room for a body of `bytes`.
    pub(crate) fn reserve(&mut self, bytes: u64) -> Result<(), TooLarge> {
        if bytes > self.max_object_bytes {
            return Err(TooLarge);
        }
        let more =
            u32::try_from(bytes.saturating_sub(self.reserved_bytes)).map_err(|_| TooLarge)?;
        let share = Arc::clone(self.budget)
            .try_acquire_many_owned(more)
            .map_err(|_| TooLarge)?;
        self.growing.hold(share);
        self.reserved_bytes = bytes;
        Ok(())
    }

    /// Copies `body` to its end, and returns it with its trailers, which the store has no use for. A body that outgrows
    /// what may be kept becomes a window, at its readers' pace.
    pub(crate) async fn copy(
        mut self,
        body: ResponseBody,
    ) -> Result<(Whole, Option<HeaderMap>), CopyError> {
        let (_, trailers) = self.append(body, u64::MAX).await?;
        let whole = self.growing.whole().map_or(Whole::PassedOn, Whole::Kept);
        Ok((whole, trailers))
    }

    /// Copies stored bytes, the rest of them from the origin, which must be `rest_bytes`, and stored bytes again. The
    /// rest has no trailers that would be those of the whole.
    pub(crate) async fn assemble(
        mut self,
        before: impl Stream<Item = Result<Bytes, StoreError>>,
        (rest, rest_bytes): (ResponseBody, u64),
        after: impl Stream<Item = Result<Bytes, StoreError>>,
    ) -> Result<(Whole, Option<HeaderMap>), CopyError> {
        self.append_stored(before).await?;
        let (bytes, _) = self.append(rest, rest_bytes).await?;
        if bytes != rest_bytes {
            return Err(CopyError::Length);
        }
        self.append_stored(after).await?;
        let whole = self.growing.whole().map_or(Whole::PassedOn, Whole::Kept);
        Ok((whole, None))
    }

    /// Room for these bytes was reserved with the rest.
    async fn append_stored(
        &mut self,
        blocks: impl Stream<Item = Result<Bytes, StoreError>>,
    ) -> Result<(), CopyError> {
        let mut blocks = pin!(blocks);
        while let Some(block) = blocks.next().await {
            let block = block?;
            self.taken_bytes += block.len() as u64;
            self.growing.push(block);
        }
        Ok(())
    }

    /// Copies what comes from an origin, at most so much: how many bytes, and the trailers.
    async fn append(
        &mut self,
        mut body: ResponseBody,
        bytes_max: u64,
    ) -> Result<(u64, Option<HeaderMap>), CopyError> {
        let (mut bytes, mut kept, mut trailers) = (0, true, None);
        loop {
            if !kept && !self.growing.room().await {
                return Err(CopyError::Unread);
            }
            // Cancel-safe: a frame is polled for, nothing is taken before it is there.
            let frame = match timeout(LOOK_AGAIN, body.frame()).await {
                Ok(Some(frame)) => frame.map_err(CopyError::Origin)?,
                Ok(None) => break,
                Err(_) => {
                    self.check_audience()?;
                    continue;
                }
            };
            self.check_audience()?;
            let data = match frame.into_data() {
                Ok(data) => data,
                Err(frame) => {
                    trailers = frame.into_trailers().ok().and_then(trailers::permitted);
                    continue;
                }
            };
            bytes += data.len() as u64;
            if bytes > bytes_max {
                // Its readers would take the rest for what comes after it.
                return Err(CopyError::Length);
            }
            if kept && self.take(data.len() as u64).is_err() {
                kept = false;
                self.growing.become_window();
            }
            self.growing.push(data);
        }
        Ok((bytes, trailers))
    }

    fn take(&mut self, bytes: u64) -> Result<(), TooLarge> {
        self.taken_bytes += bytes;
        if self.taken_bytes <= self.reserved_bytes {
            return Ok(());
        }
        // The last step may not reach beyond what a body may have, or a body that just fits would not.
        let step = self.taken_bytes.next_multiple_of(STEP_BYTES);
        self.reserve(step.min(self.max_object_bytes).max(self.taken_bytes))
    }

    fn check_audience(&mut self) -> Result<(), CopyError> {
        if self.growing.has_readers() {
            self.unread_since = None;
            return Ok(());
        }
        let since = *self.unread_since.get_or_insert_with(Instant::now);
        if since.elapsed() > UNREAD_TIMEOUT {
            Err(CopyError::Unread)
        } else {
            Ok(())
        }
    }
}
