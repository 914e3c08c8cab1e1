// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of objects: which files can be objects, their sizes, and access by the processor.

use std::{
    fmt,
    fs::OpenOptions,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::OpenOptionsExt,
    },
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        stat::fstat,
        statfs::{FsType, TMPFS_MAGIC, fstatfs},
    },
    unistd::{Whence, lseek},
};

use super::{
    files::{self, FileId},
    mapping::Mapping,
};

/// The file system of dmabufs (DMA_BUF_MAGIC of linux/magic.h).
const DMA_BUF_FILE_SYSTEM: FsType = FsType(0x444d_4142);
/// The flags of `DMA_BUF_IOCTL_SYNC`: the processor begins to read, or has read.
const BEGIN_READ: u64 = 1;
const END_READ: u64 = 1 | 4;

mod ioctl {
    // The number and the argument are those of linux/dma-buf.h: a structure of one field, the flags.
    nix::ioctl_write_ptr!(dma_buf_sync, b'b', 0, u64);
}

/// What kind of memory an object is.
///
/// # Examples
///
/// ```
/// use rsshm_channel::ObjectKind;
///
/// assert_eq!(ObjectKind::Dmabuf.to_string(), "dmabuf");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[non_exhaustive]
pub enum ObjectKind {
    /// A file in memory, such as one of memfd_create(2), or of a tmpfs.
    Memfd = 1,
    /// A dmabuf, which devices can use too.
    Dmabuf = 2,
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memfd => "memfd",
            Self::Dmabuf => "dmabuf",
        })
    }
}

/// An open file that is the memory of an object, with what was checked when it was opened.
#[derive(Debug)]
pub(crate) struct ObjectFile {
    file: OwnedFd,
    kind: ObjectKind,
    size: u64,
    file_id: FileId,
    /// The whole file, mapped at the first access for which there is address space.
    mapping: OnceLock<Mapping>,
}

/// Why a file cannot be the memory of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotAnObject {
    /// It is neither a dmabuf nor a file in memory. Reading another file may block, and its pages may be changed.
    OtherKind,
    /// It has no bytes.
    Empty,
    /// A system call failed.
    Failed(Errno),
}

impl From<Errno> for NotAnObject {
    fn from(errno: Errno) -> Self {
        Self::Failed(errno)
    }
}

impl ObjectFile {
    /// Checks a file that this process has opened or received.
    pub(crate) fn new(file: OwnedFd) -> Result<Self, NotAnObject> {
        let stat = fstat(&file)?;
        let file_system = fstatfs(&file)?.filesystem_type();
        // The size of a dmabuf is not in its status in all versions of the kernel.
        let (kind, size) = if file_system == DMA_BUF_FILE_SYSTEM {
            (ObjectKind::Dmabuf, lseek(&file, 0, Whence::SeekEnd)?)
        } else if file_system == TMPFS_MAGIC && stat.st_mode & libc::S_IFMT == libc::S_IFREG {
            (ObjectKind::Memfd, stat.st_size)
        } else {
            return Err(NotAnObject::OtherKind);
        };
        let size = u64::try_from(size)
            .ok()
            .filter(|size| *size > 0)
            .ok_or(NotAnObject::Empty)?;
        Ok(Self {
            file,
            kind,
            size,
            file_id: FileId::from(&stat),
            mapping: OnceLock::new(),
        })
    }

    /// Opens the file of a descriptor once more, for other processes. A file in memory is opened for reading only, so
    /// that no reader changes or shortens it by mistake.
    pub(crate) fn open_again(file: BorrowedFd<'_>) -> Result<Self, NotAnObject> {
        let duplicate = Self::new(file.try_clone_to_owned().map_err(|error| super::errno::of(&error))?)?;
        if duplicate.kind != ObjectKind::Memfd {
            return Ok(duplicate);
        }
        let opened = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(format!("/proc/self/fd/{}", duplicate.file.as_raw_fd()));
        // Without /proc, and for a file that this user may not open, readers get the descriptor as it is.
        match opened.map(|file| Self::new(file.into())) {
            Ok(Ok(file)) if file.file_id == duplicate.file_id => Ok(file),
            _ => Ok(duplicate),
        }
    }

    pub(crate) fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// The size in bytes when the file was checked.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The `size` bytes at `offset`, in a mapping of the whole file that is made once.
    ///
    /// # Safety
    /// Nobody shortens the file, and nobody changes the bytes while they are used.
    pub(crate) unsafe fn bytes(&self, offset: u64, size: u64) -> nix::Result<&[u8]> {
        let mapping = match self.mapping.get() {
            Some(mapping) => mapping,
            None => {
                let mapping = Mapping::new(&self.file, 0, self.size, false)?;
                mapping.exclude_from_dumps();
                // If another thread was faster, its mapping stays.
                self.mapping.get_or_init(|| mapping)
            }
        };
        mapping.range(offset, size).ok_or(Errno::EINVAL)?;
        // SAFETY: the range is inside the mapping, which is as long as the file was. The caller promises the rest.
        Ok(unsafe { mapping.slice(offset, size) })
    }

    /// Copies the bytes at `offset`. A file in memory is read, because a read of a file that was shortened fails, while
    /// an access to a mapping of it would be fatal (SIGBUS).
    pub(crate) fn copy(&self, offset: u64, target: &mut [u8]) -> nix::Result<()> {
        match self.kind {
            ObjectKind::Memfd => match files::read_exactly(&self.file, target, offset)? {
                true => Ok(()),
                false => Err(Errno::ENXIO),
            },
            ObjectKind::Dmabuf => {
                self.begin_access();
                // SAFETY: a dmabuf has its size for ever. Its bytes may change during the copy if the writer takes the
                // frame back: the caller then discards the copy. The copy below does not depend on their values.
                let bytes = unsafe { self.bytes(offset, target.len() as u64) };
                let copied = bytes.map(|bytes| target.copy_from_slice(bytes));
                self.end_access();
                copied
            }
        }
    }

    /// Begins access by the processor, which [`end_access`](Self::end_access) ends. For a dmabuf, it makes the bytes
    /// that a device has written visible to the processor.
    pub(crate) fn begin_access(&self) {
        self.sync(BEGIN_READ);
    }

    /// Ends an access by the processor.
    pub(crate) fn end_access(&self) {
        self.sync(END_READ);
    }

    /// A failure is ignored, because a driver without this call has memory that needs none.
    fn sync(&self, flags: u64) {
        if self.kind == ObjectKind::Dmabuf {
            let file = self.file.as_raw_fd();
            // SAFETY: the call reads one `u64` at the address.
            let sync = || unsafe { ioctl::dma_buf_sync(file, &raw const flags) };
            while let Err(Errno::EINTR | Errno::EAGAIN) = sync() {}
        }
    }
}

impl AsFd for ObjectFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn only_memory_can_be_an_object() {
        let memory = memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap();
        assert_eq!(
            ObjectFile::new(memory.try_clone().unwrap()).unwrap_err(),
            NotAnObject::Empty
        );
        nix::unistd::ftruncate(&memory, 5000).unwrap();
        let object = ObjectFile::open_again(memory.as_fd()).unwrap();
        assert_eq!((object.kind(), object.size()), (ObjectKind::Memfd, 5000));
        nix::unistd::write(object.as_fd(), b"x").expect_err("the file is open for reading only");
        for path in ["/dev/null", "/proc/self/exe", "/proc/meminfo"] {
            let file = std::fs::File::open(path).unwrap();
            assert_eq!(
                ObjectFile::new(file.into()).unwrap_err(),
                NotAnObject::OtherKind,
                "{path}"
            );
        }
    }

    #[test]
    fn copy_of_a_shortened_file_fails() {
        let memory = memfd_create("test", MFdFlags::MFD_CLOEXEC).unwrap();
        nix::unistd::ftruncate(&memory, 8192).unwrap();
        let object = ObjectFile::open_again(memory.as_fd()).unwrap();
        assert_eq!(object.copy(4096, &mut [0; 4096]), Ok(()));
        assert_eq!(object.copy(4097, &mut [0; 4096]), Err(Errno::ENXIO));
        nix::unistd::ftruncate(&memory, 4096).unwrap();
        assert_eq!(object.copy(4096, &mut [0; 4096]), Err(Errno::ENXIO));
    }
}
