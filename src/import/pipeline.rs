//! The way of messages from a place to what is ready to be written: read in chunks on one thread,
//! understood on as many as there are processors, in the order of the file.

use std::{
    io::BufRead,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fail::fail_point;
use futures_util::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    eml,
    mbox::{MboxError, Reader},
    record::{Context, Letter},
};
use crate::{db::sync_cursor::FilePosition, sync::batch::Entry};

/// Messages that are understood in one go,
const CHUNK_ITEMS: usize = 20;
/// or so many bytes of them.
const CHUNK_BYTES: usize = 512 * 1024;
/// Bytes of messages that are in memory between being read and being written.
const BYTES_AHEAD: usize = 8 * 1024 * 1024;
/// Threads that understand mail, at most; one writes what they make.
const MAX_THREADS: usize = 8;
/// Longest message that is imported, in bytes.
const MAX_BYTES: usize = email::MAX_RAW_BYTES;

/// Messages that follow each other.
pub(super) struct Chunk {
    letters: Vec<Result<Letter, Entry>>,
    bytes: usize,
    position: Option<FilePosition>,
    permit: Option<OwnedSemaphorePermit>,
}

/// What is ready to be written.
pub(super) struct Ready {
    pub(super) entries: Vec<Entry>,
    /// Bytes as they stand in the file.
    pub(super) bytes: usize,
    /// How far the file has come with these.
    pub(super) position: Option<FilePosition>,
    /// The share of memory that is held.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

/// Why a place was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It is not the file that was imported in part.
    #[error("the file has changed")]
    OtherFile,
    /// It is no mbox, or cannot be read on.
    #[error(transparent)]
    Mbox(#[from] MboxError),
}

/// Takes chunks, as far as there is memory for them.
pub(super) struct Chunks {
    send: mpsc::Sender<Chunk>,
    memory: Arc<Semaphore>,
}

impl Chunks {
    pub(super) fn new(send: mpsc::Sender<Chunk>) -> Self {
        Self {
            send,
            memory: Arc::new(Semaphore::new(BYTES_AHEAD)),
        }
    }

    /// Waits for room and passes the chunk on. `false` where nobody takes it any more.
    fn push(&self, gathered: &mut Gathered, position: Option<FilePosition>) -> bool {
        let share = gathered.bytes.clamp(1, BYTES_AHEAD) as u32;
        let waiting = Arc::clone(&self.memory).acquire_many_owned(share);
        let chunk = Chunk {
            letters: std::mem::take(&mut gathered.letters),
            bytes: std::mem::take(&mut gathered.bytes),
            position,
            // Nobody closes the semaphore.
            permit: Handle::current().block_on(waiting).ok(),
        };
        fail_point!("import.read");
        self.send.blocking_send(chunk).is_ok()
    }
}

#[derive(Default)]
struct Gathered {
    letters: Vec<Result<Letter, Entry>>,
    bytes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.letters.len() >= CHUNK_ITEMS || self.bytes >= CHUNK_BYTES
    }
}

/// Reads an mbox; from `resume` on, where an earlier import has come so far in it. All before that is
/// read too, because only so it is known to be the same.
pub(super) fn read_mbox(
    input: Box<dyn BufRead + Send>,
    mut resume: Option<FilePosition>,
    chunks: &Chunks,
) -> Result<(), ReadError> {
    let mut reader = Reader::new(input, MAX_BYTES)?;
    let takeout = reader.is_takeout();
    let mut digest = Sha256::new();
    let mut gathered = Gathered::default();
    let mut end = 0;
    while let Some(message) = reader.next_message().map_err(MboxError::Read)? {
        digest.update(&message.separator);
        digest.update(&message.raw);
        end = message.end;
        if let Some(position) = &resume {
            if message.end < position.offset {
                continue;
            }
            if message.end > position.offset || position.digest != hex(&digest) {
                return Err(ReadError::OtherFile);
            }
            resume = None;
            continue;
        }
        if message.raw.is_empty() {
            continue;
        }
        let letter = Letter::of_mbox(message, takeout);
        gathered.bytes += letter.len();
        gathered.letters.push(Ok(letter));
        if gathered.is_full() && !chunks.push(&mut gathered, Some(position(end, &digest))) {
            return Ok(());
        }
    }
    if resume.is_some() {
        return Err(ReadError::OtherFile);
    }
    if !gathered.letters.is_empty() {
        chunks.push(&mut gathered, Some(position(end, &digest)));
    }
    Ok(())
}

fn position(offset: u64, digest: &Sha256) -> FilePosition {
    FilePosition {
        offset,
        digest: hex(digest),
    }
}

fn hex(digest: &Sha256) -> String {
    format!("{:x}", digest.clone().finalize())
}

/// Reads files of one message each, and counts them. What cannot be read counts as failed.
pub(super) fn read_files(
    files: &[PathBuf],
    read: &AtomicU64,
    chunks: &Chunks,
) -> Result<(), ReadError> {
    let mut gathered = Gathered::default();
    for path in files {
        let letter = match eml::read(path, MAX_BYTES) {
            Ok((raw, cut)) => Ok(Letter::of_file(raw, cut)),
            Err(error) => {
                let file = path.display().to_string();
                tracing::warn!(file, error = %error, "a message cannot be read");
                Err(Entry::Refuse(format!("file:{file}")))
            }
        };
        gathered.bytes += letter.as_ref().map_or(0, Letter::len);
        gathered.letters.push(letter);
        read.fetch_add(1, Ordering::Relaxed);
        if gathered.is_full() && !chunks.push(&mut gathered, None) {
            return Ok(());
        }
    }
    if !gathered.letters.is_empty() {
        chunks.push(&mut gathered, None);
    }
    Ok(())
}

/// Understands chunk after chunk, several at a time, and passes them on in their order. The error says
/// what panicked.
pub(super) async fn understand(
    context: Context,
    chunks: mpsc::Receiver<Chunk>,
    ready: mpsc::Sender<Ready>,
) -> Result<(), String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let chunks = stream::unfold(chunks, |mut chunks| async move {
        let chunk = chunks.recv().await?;
        Some((chunk, chunks))
    });
    let understood = chunks
        .map(|chunk| tokio::task::spawn_blocking(move || understood(context, chunk)))
        .buffered(threads.min(MAX_THREADS));
    let mut understood = std::pin::pin!(understood);
    while let Some(done) = understood.next().await {
        let done = done.map_err(|error| error.to_string())?;
        // The receiver goes only when the writer has ended, and then that is what is told.
        if ready.send(done).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn understood(context: Context, chunk: Chunk) -> Ready {
    let entries = chunk
        .letters
        .into_iter()
        .map(|letter| letter.map_or_else(|entry| entry, |letter| letter.into_entry(context)))
        .collect();
    fail_point!("import.understood");
    Ready {
        entries,
        bytes: chunk.bytes,
        position: chunk.position,
        permit: chunk.permit,
    }
}
