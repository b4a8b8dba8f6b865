//! The memory and the four rings that an AF_XDP socket shares with the kernel: `Documentation/networking/af_xdp.rst`,
//! `net/xdp/xsk.c`, `net/xdp/xsk_queue.h`. Owns the descriptor, the mappings and the positions in the rings; knows
//! chunks of memory and not what is in them.
//!
//! A chunk is either ours or the kernel's. The kernel's are those in the fill ring, those it has taken out of it, and
//! those between the transmit and the completion ring; nothing here touches them.
#![allow(unsafe_code)]

use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::sys;

/// How large to make the shared memory. All but `chunk_len` are powers of two.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RingSpec {
    /// Bytes of one chunk: 2048 or 4096.
    pub(crate) chunk_len: u32,
    /// Chunks for what comes in, and entries of the receive and the fill ring.
    pub(crate) rx_chunks: u32,
    /// Chunks for what goes out, and entries of the transmit and the completion ring.
    pub(crate) tx_chunks: u32,
}

/// The socket with all that it shares with the kernel. The mappings hold the socket open: an interface's queue is free
/// only when both are gone, which is when this is dropped.
pub(crate) struct Rings {
    fd: OwnedFd,
    umem: Mapping,
    chunk_len: u64,
    fill: Ring<u64>,
    completion: Ring<u64>,
    rx: Ring<libc::xdp_desc>,
    tx: Ring<libc::xdp_desc>,
    /// Chunks to write into.
    free: Vec<u64>,
}

/// What the kernel dropped of what it was to hand over, since the socket was bound (`XDP_STATISTICS`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XdpDrops {
    /// The receive ring was full: this thread did not keep up.
    pub ring_full: u64,
    /// There was no chunk to put it into, for the same reason. A driver with zero copy also counts looks in vain here.
    pub no_chunk: u64,
    /// For other reasons; a frame larger than a chunk, for one.
    pub other: u64,
}

/// What was tried, and what the kernel answered.
pub(crate) type Refused = (&'static str, io::Error);

impl Rings {
    /// An AF_XDP socket with its memory, bound to nothing yet.
    pub(crate) fn new(spec: &RingSpec) -> Result<Self, Refused> {
        debug_assert!(spec.rx_chunks.is_power_of_two() && spec.tx_chunks.is_power_of_two());
        // SAFETY:
        // - no pointers are passed.
        let raw = unsafe {
            libc::socket(
                libc::AF_XDP,
                libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
                0,
            )
        };
        if raw < 0 {
            return Err(("socket", io::Error::last_os_error()));
        }
        // SAFETY:
        // - `raw` was opened right here and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(raw) };
        let chunks = spec.rx_chunks + spec.tx_chunks;
        let chunk_len = u64::from(spec.chunk_len);
        let umem = Mapping::anonymous(chunks as usize * spec.chunk_len as usize)
            .map_err(|error| ("memory", error))?;
        let mut registration = zeroed_registration();
        registration.addr = umem.start.as_ptr() as u64;
        registration.len = umem.len as u64;
        registration.chunk_size = spec.chunk_len;
        set(fd.as_fd(), libc::XDP_UMEM_REG, &registration)
            .map_err(|error| ("XDP_UMEM_REG", error))?;
        for (name, size) in [
            (libc::XDP_UMEM_FILL_RING, spec.rx_chunks),
            (libc::XDP_UMEM_COMPLETION_RING, spec.tx_chunks),
            (libc::XDP_RX_RING, spec.rx_chunks),
            (libc::XDP_TX_RING, spec.tx_chunks),
        ] {
            set(fd.as_fd(), name, &size).map_err(|error| ("ring size", error))?;
        }
        let offsets = read_offsets(fd.as_fd()).map_err(|error| ("XDP_MMAP_OFFSETS", error))?;
        let ring = |error| ("ring memory", error);
        let (rx_pages, tx_pages) = (libc::XDP_PGOFF_RX_RING, libc::XDP_PGOFF_TX_RING);
        let mut rings = Self {
            umem,
            chunk_len,
            fill: Ring::map(
                &fd,
                libc::XDP_UMEM_PGOFF_FILL_RING as libc::off_t,
                &offsets.fr,
                spec.rx_chunks,
            )
            .map_err(ring)?,
            completion: Ring::map(
                &fd,
                libc::XDP_UMEM_PGOFF_COMPLETION_RING as libc::off_t,
                &offsets.cr,
                spec.tx_chunks,
            )
            .map_err(ring)?,
            rx: Ring::map(&fd, rx_pages, &offsets.rx, spec.rx_chunks).map_err(ring)?,
            tx: Ring::map(&fd, tx_pages, &offsets.tx, spec.tx_chunks).map_err(ring)?,
            free: (spec.rx_chunks..chunks)
                .map(|chunk| u64::from(chunk) * chunk_len)
                .collect(),
            fd,
        };
        for chunk in 0..spec.rx_chunks {
            rings.fill.put(u64::from(chunk) * chunk_len);
        }
        rings.fill.publish();
        Ok(rings)
    }

    /// Takes over one queue of an interface; `flags` are `XDP_COPY` and its siblings.
    pub(crate) fn bind(&self, ifindex: u32, queue: u32, flags: u16) -> io::Result<()> {
        let address = libc::sockaddr_xdp {
            sxdp_family: libc::AF_XDP as u16,
            sxdp_flags: flags,
            sxdp_ifindex: ifindex,
            sxdp_queue_id: queue,
            sxdp_shared_umem_fd: 0,
        };
        // SAFETY:
        // - the descriptor is open for the length of the call.
        // - `address` is a `sockaddr_xdp` of the length given, and the kernel only reads it.
        let result = unsafe {
            libc::bind(
                self.fd.as_raw_fd(),
                ptr::from_ref(&address).cast(),
                mem::size_of_val(&address) as libc::socklen_t,
            )
        };
        check(result)
    }

    /// Whether the driver reads and writes our chunks itself.
    pub(crate) fn is_zero_copy(&self) -> io::Result<bool> {
        let mut options = libc::xdp_options { flags: 0 };
        let len = mem::size_of_val(&options);
        read(self.fd.as_fd(), libc::XDP_OPTIONS, &mut options, len)?;
        Ok(options.flags & libc::XDP_OPTIONS_ZEROCOPY != 0)
    }

    /// What the kernel dropped.
    pub(crate) fn drops(&self) -> io::Result<XdpDrops> {
        drops(self.fd.as_fd())
    }

    /// The descriptor once more.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.fd.try_clone()
    }

    /// Frames that have come and were not released.
    pub(crate) fn received(&self) -> u32 {
        self.rx.filled()
    }

    /// The `at`th of the received frames; empty where the kernel names memory that is not ours.
    pub(crate) fn frame(&self, at: u32) -> &[u8] {
        let desc = self.rx.peek(at);
        let end = desc.addr.checked_add(u64::from(desc.len));
        if end.is_none_or(|end| end > self.umem.len as u64) {
            debug_assert!(false, "a frame outside the memory");
            return &[];
        }
        // SAFETY:
        // - the range lies inside the mapping, checked above.
        // - the kernel put this chunk into the receive ring and does not touch it until it comes back by the fill ring,
        //   which takes `&mut self`.
        // - any bytes are a `u8`.
        unsafe {
            std::slice::from_raw_parts(
                self.umem.start.as_ptr().add(desc.addr as usize),
                desc.len as usize,
            )
        }
    }

    /// Gives the chunks of the first `count` received frames back to the kernel.
    pub(crate) fn release(&mut self, count: u32) {
        debug_assert!(count <= self.received());
        for at in 0..count {
            let addr = self.rx.peek(at).addr;
            // The fill ring is as large as there are chunks that can be in it.
            self.fill.put(addr - addr % self.chunk_len);
        }
        self.rx.release(count);
        self.fill.publish();
    }

    /// Whether the driver has stopped looking at the fill ring and wants to be told.
    pub(crate) fn wants_fill_wakeup(&self) -> bool {
        self.fill.wants_wakeup()
    }

    /// Tells the driver to look at the fill ring.
    pub(crate) fn wake_fill(&self) {
        // SAFETY:
        // - the descriptor is open for the length of the call, and no buffer is given.
        // What it answers is of no use: the next call asks again.
        unsafe {
            libc::recvfrom(
                self.fd.as_raw_fd(),
                ptr::null_mut(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        };
    }

    /// Chunks that can be written now.
    pub(crate) fn writable(&self) -> usize {
        self.free.len()
    }

    /// Puts one frame in the transmit ring: `write` fills a chunk and says how much of it. `false` where there is none.
    pub(crate) fn put(&mut self, write: impl FnOnce(&mut [u8]) -> usize) -> bool {
        let Some(addr) = self.free.pop() else {
            return false;
        };
        // SAFETY:
        // - `free` holds starts of whole chunks inside the mapping only.
        // - a chunk in `free` is neither in a ring nor with the kernel, and it is in there once; so this is the only
        //   reference to it.
        // - any bytes are a `u8`.
        let chunk = unsafe {
            std::slice::from_raw_parts_mut(
                self.umem.start.as_ptr().add(addr as usize),
                self.chunk_len as usize,
            )
        };
        let len = write(chunk);
        assert!(len <= chunk.len(), "a frame larger than its chunk");
        self.tx.put(libc::xdp_desc {
            addr,
            len: len as u32,
            options: 0,
        });
        true
    }

    /// Shows the kernel what was [`put`](Self::put).
    pub(crate) fn publish(&mut self) {
        self.tx.publish();
    }

    /// Frames that the kernel has not taken out of the transmit ring.
    pub(crate) fn unsent(&self) -> u32 {
        self.tx.occupied()
    }

    /// Has the kernel send; in copy mode it does so inside this call, a bounded number of frames.
    ///
    /// # Errors
    /// `EAGAIN`, `EBUSY`, `ENOBUFS`: not all at once. `ENETDOWN`, `ENXIO`: the interface is down or gone.
    pub(crate) fn kick(&self) -> io::Result<()> {
        if !self.tx.wants_wakeup() {
            return Ok(());
        }
        // SAFETY:
        // - the descriptor is open for the length of the call, and neither data nor an address is given.
        let result = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                ptr::null(),
                0,
                libc::MSG_DONTWAIT,
                ptr::null(),
                0,
            )
        };
        match result {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }

    /// Takes back the chunks that were sent.
    pub(crate) fn reap(&mut self) {
        let count = self.completion.filled();
        for at in 0..count {
            let addr = self.completion.peek(at);
            if addr < self.umem.len as u64 {
                self.free.push(addr - addr % self.chunk_len);
            }
        }
        self.completion.release(count);
    }

    /// `SO_SNDBUF` bounds what is under way in copy mode; the default is some sixty frames.
    pub(crate) fn set_send_buffer(&self, bytes: i32) {
        let fd = self.fd.as_fd();
        if sys::set_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, bytes).is_err() {
            // As much as the system allows without privilege; fewer frames go at once then.
            let _ = sys::set_int(fd, libc::SOL_SOCKET, libc::SO_SNDBUF, bytes);
        }
    }
}

impl AsFd for Rings {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// One ring: we write entries and the kernel reads them (fill, transmit), or the other way round.
struct Ring<D> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<D>,
    mask: u32,
    /// Our end's position: of the next entry to write, or of the next to read.
    ours: u32,
    /// Keeps the four pointers valid.
    _map: Mapping,
}

// SAFETY:
// - the pointers lead into `_map`, which moves along and belongs to this ring alone; the kernel is the other side.
unsafe impl<D: Send> Send for Ring<D> {}

impl<D: Copy> Ring<D> {
    fn map(
        fd: &OwnedFd,
        page_offset: libc::off_t,
        offsets: &libc::xdp_ring_offset,
        entries: u32,
    ) -> io::Result<Self> {
        let len = offsets.desc as usize + entries as usize * mem::size_of::<D>();
        let map = Mapping::of_socket(fd.as_fd(), len, page_offset)?;
        let at = |offset: u64, size: usize, align: usize| {
            let offset = offset as usize;
            let fits = offset + size <= len && offset.is_multiple_of(align);
            // SAFETY:
            // - the result stays inside the mapping, checked in `fits`.
            fits.then(|| unsafe { map.start.add(offset) })
                .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
        };
        let word = |offset| at(offset, 4, 4).map(NonNull::cast::<AtomicU32>);
        let table = at(offsets.desc, 0, mem::align_of::<D>())?;
        Ok(Self {
            producer: word(offsets.producer)?,
            consumer: word(offsets.consumer)?,
            flags: word(offsets.flags)?,
            entries: table.cast(),
            mask: entries - 1,
            ours: 0,
            _map: map,
        })
    }

    fn load(&self, word: NonNull<AtomicU32>) -> u32 {
        // SAFETY:
        // - the pointer was made in `map`: aligned, inside the mapping, which lives as long as `self`.
        // - the kernel touches the word as an atomic only.
        unsafe { word.as_ref() }.load(Ordering::Acquire)
    }

    fn store(&self, word: NonNull<AtomicU32>, value: u32) {
        // SAFETY:
        // - as in `load`.
        unsafe { word.as_ref() }.store(value, Ordering::Release);
    }

    fn wants_wakeup(&self) -> bool {
        self.load(self.flags) & libc::XDP_RING_NEED_WAKEUP != 0
    }

    /// As the writing end: entries that the kernel has not read.
    fn occupied(&self) -> u32 {
        self.ours.wrapping_sub(self.load(self.consumer))
    }

    /// As the writing end: writes an entry, for [`publish`](Self::publish) to show.
    fn put(&mut self, entry: D) {
        debug_assert!(self.occupied() <= self.mask, "a ring that is full");
        // SAFETY:
        // - the index is masked to the number of entries that `map` made room for.
        // - the kernel does not read an entry before `publish`, and has read what was here before: there are never more
        //   entries than chunks, and a ring has an entry for each.
        unsafe {
            self.entries
                .add((self.ours & self.mask) as usize)
                .write(entry);
        }
        self.ours = self.ours.wrapping_add(1);
    }

    fn publish(&self) {
        self.store(self.producer, self.ours);
    }

    /// As the reading end: entries that the kernel has written and that were not released.
    fn filled(&self) -> u32 {
        // More than the ring holds is not to be believed.
        let filled = self.load(self.producer).wrapping_sub(self.ours);
        filled.min(self.mask + 1)
    }

    /// As the reading end: the `at`th entry that was not released, below [`filled`](Self::filled).
    fn peek(&self, at: u32) -> D {
        // SAFETY:
        // - the index is masked to the number of entries that `map` made room for.
        // - below `filled` the kernel has written the entry and does not touch it before it is released.
        // - entries are plain integers, of which any bytes are a value.
        unsafe {
            self.entries
                .add((self.ours.wrapping_add(at) & self.mask) as usize)
                .read()
        }
    }

    fn release(&mut self, count: u32) {
        self.ours = self.ours.wrapping_add(count);
        self.store(self.consumer, self.ours);
    }
}

/// Memory from `mmap(2)`, given back when dropped.
struct Mapping {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY:
// - the memory belongs to this value alone, whichever thread has it.
unsafe impl Send for Mapping {}

impl Mapping {
    fn anonymous(len: usize) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        Self::new(len, flags, -1, 0)
    }

    fn of_socket(fd: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
        Self::new(len, flags, fd.as_raw_fd(), offset)
    }

    fn new(len: usize, flags: i32, fd: i32, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY:
        // - the kernel chooses the address, so that no mapping of ours is replaced.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                flags,
                fd,
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { start, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY:
        // - exactly what `mmap` returned, once; whoever had a pointer into it is gone with the owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

fn zeroed_registration() -> libc::xdp_umem_reg {
    // SAFETY:
    // - integers only, so all zero is a value of it; fields that newer kernels add mean "not wanted" as zero.
    unsafe { mem::zeroed() }
}

/// What the kernel dropped before it reached the socket.
pub(crate) fn drops(fd: BorrowedFd<'_>) -> io::Result<XdpDrops> {
    let mut statistics = libc::xdp_statistics {
        rx_dropped: 0,
        rx_invalid_descs: 0,
        tx_invalid_descs: 0,
        rx_ring_full: 0,
        rx_fill_ring_empty_descs: 0,
        tx_ring_empty_descs: 0,
    };
    let len = mem::size_of_val(&statistics);
    read(fd, libc::XDP_STATISTICS, &mut statistics, len)?;
    Ok(XdpDrops {
        ring_full: statistics.rx_ring_full,
        no_chunk: statistics.rx_fill_ring_empty_descs,
        // In copy mode what found no chunk is counted in both.
        other: statistics
            .rx_dropped
            .saturating_sub(statistics.rx_fill_ring_empty_descs)
            + statistics.rx_invalid_descs,
    })
}

fn read_offsets(fd: BorrowedFd<'_>) -> io::Result<libc::xdp_mmap_offsets> {
    let none = libc::xdp_ring_offset {
        producer: 0,
        consumer: 0,
        desc: 0,
        flags: 0,
    };
    let mut offsets = libc::xdp_mmap_offsets {
        rx: none,
        tx: none,
        fr: none,
        cr: none,
    };
    let len = mem::size_of_val(&offsets);
    // Before Linux 5.4 there are no flags, and a shorter answer.
    read(fd, libc::XDP_MMAP_OFFSETS, &mut offsets, len)?;
    Ok(offsets)
}

fn set<T>(fd: BorrowedFd<'_>, name: i32, value: &T) -> io::Result<()> {
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `value` is readable for its size during the call, and the kernel only reads it. What a registration points to
    //   is the mapping that lives beside the socket.
    let result = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            ptr::from_ref(value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    check(result)
}

/// Reads an option into plain integers; an answer shorter than `len` is refused.
fn read<T: Copy>(fd: BorrowedFd<'_>, name: i32, value: &mut T, len: usize) -> io::Result<()> {
    debug_assert_eq!(len, mem::size_of::<T>());
    let mut got = len as libc::socklen_t;
    // SAFETY:
    // - the descriptor is open for the length of the call.
    // - `value` is `len` writable bytes, of which any bit pattern is a value: callers pass structs of integers.
    let result = unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_XDP,
            name,
            ptr::from_mut(value).cast(),
            &mut got,
        )
    };
    check(result)?;
    match got as usize == len {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::ENOSYS)),
    }
}

fn check(result: libc::c_int) -> io::Result<()> {
    match result {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
