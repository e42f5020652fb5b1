//! Opening what is imported: files and standard input, plain or packed by gzip. What is in them is
//! looked at elsewhere.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::bufread::MultiGzDecoder;
use sha2::{Digest, Sha256};

/// Read at once from a file, in bytes.
const BUFFER_BYTES: usize = 256 << 10;
/// By so many first bytes a file is known again.
const FINGERPRINT_BYTES: u64 = 64 << 10;
/// The first bytes of what gzip has packed (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Where mail is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Standard input.
    Input,
    /// A file.
    File(PathBuf),
}

impl Place {
    /// What people call it.
    pub fn name(&self) -> String {
        match self {
            Self::Input => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// Whether it can be read once more from its beginning: a regular file.
    pub fn is_file(&self) -> bool {
        match self {
            Self::Input => false,
            Self::File(path) => path.is_file(),
        }
    }
}

/// A place that is open.
pub struct Opened {
    /// Its bytes, unpacked.
    pub input: Box<dyn BufRead + Send>,
    /// Lower-case hex SHA-256 of its first bytes, unpacked.
    pub fingerprint: String,
    /// How long it is, in bytes, as it lies there; unknown of a pipe.
    pub size: Option<u64>,
    /// How many of those bytes were read so far.
    pub read: Arc<AtomicU64>,
}

/// Opens a place.
pub fn open(place: &Place) -> io::Result<Opened> {
    match place {
        Place::Input => opened(io::stdin(), None),
        Place::File(path) => {
            let file = File::open(path)?;
            let about = file.metadata()?;
            if about.is_dir() {
                return Err(io::ErrorKind::IsADirectory.into());
            }
            opened(file, about.is_file().then_some(about.len()))
        }
    }
}

fn opened(from: impl Read + Send + 'static, size: Option<u64>) -> io::Result<Opened> {
    let read = Arc::new(AtomicU64::new(0));
    let counted = Counted {
        from,
        read: Arc::clone(&read),
    };
    let mut raw = BufReader::with_capacity(BUFFER_BYTES, counted);
    // A pipe may give a single byte at first.
    let mut magic = Vec::new();
    (&mut raw).take(GZIP.len() as u64).read_to_end(&mut magic)?;
    let is_gzip = magic == GZIP;
    let raw = Cursor::new(magic).chain(raw);
    let mut unpacked: Box<dyn BufRead + Send> = if is_gzip {
        let decoder = MultiGzDecoder::new(raw);
        Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
    } else {
        Box::new(raw)
    };
    let mut first = Vec::new();
    (&mut unpacked)
        .take(FINGERPRINT_BYTES)
        .read_to_end(&mut first)?;
    Ok(Opened {
        fingerprint: format!("{:x}", Sha256::digest(&first)),
        input: Box::new(Cursor::new(first).chain(unpacked)),
        size,
        read,
    })
}

/// Counts what is read.
struct Counted<R> {
    from: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    fn read(bytes: &[u8]) -> io::Result<(Vec<u8>, Opened)> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        let mut opened = open(&Place::File(file.path().to_owned()))?;
        let mut content = Vec::new();
        opened.input.read_to_end(&mut content)?;
        Ok((content, opened))
    }

    fn packed(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_packed_file_is_read_as_the_plain_one() {
        let plain = b"From me\n".repeat(20_000);
        let (content, opened) = read(&plain).unwrap();
        assert!(content == plain);
        assert_eq!(opened.size, Some(160_000));
        assert_eq!(opened.read.load(Ordering::Relaxed), 160_000);
        // Several members one behind the other, as after appending.
        let (half, rest) = plain.split_at(80_001);
        let two = [packed(half), packed(rest)].concat();
        let (unpacked, again) = read(&two).unwrap();
        assert!(unpacked == plain);
        assert_eq!(again.fingerprint, opened.fingerprint);
        assert_eq!(again.size, Some(two.len() as u64));
    }

    #[test]
    fn a_packed_file_that_was_cut_says_so() {
        let whole = packed(&b"From me\n".repeat(100));
        let Err(error) = read(&whole[..whole.len() - 9]) else {
            panic!("it was read");
        };
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_file_shorter_than_the_magic_bytes_is_read_as_it_is() {
        for bytes in [&b""[..], b"F", b"\x1f"] {
            assert_eq!(read(bytes).unwrap().0, bytes);
        }
    }

    #[test]
    fn a_folder_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let Err(error) = open(&Place::File(folder.path().to_owned())) else {
            panic!("it was opened");
        };
        assert_eq!(error.kind(), io::ErrorKind::IsADirectory);
    }
}
