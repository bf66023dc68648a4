//! Few bytes, moved without a loop or a call.

/// At most so many bytes.
pub(super) const MOST: usize = 128;

/// Copies `count` bytes as two pieces that may overlap, both read before either is written.
///
/// # Safety
/// `count` is at most [`MOST`]; so many bytes can be read there, and written.
#[inline(always)]
pub(super) unsafe fn copy(from: *const u8, to: *mut u8, count: usize) {
    // SAFETY: the caller's promise: each piece is at most `count` long.
    unsafe {
        match count {
            0 => {}
            1 => to.write(from.read()),
            2..4 => ends::<2>(from, to, count),
            4..8 => ends::<4>(from, to, count),
            8..16 => ends::<8>(from, to, count),
            16..32 => ends::<16>(from, to, count),
            32..64 => ends::<32>(from, to, count),
            _ => ends::<64>(from, to, count),
        }
    }
}

/// # Safety
/// `count` is at least `PIECE` and at most twice that; so many bytes can be read there, and written.
#[inline(always)]
unsafe fn ends<const PIECE: usize>(from: *const u8, to: *mut u8, count: usize) {
    let last = count - PIECE;
    // SAFETY: the caller's promise.
    unsafe {
        let head = from.cast::<[u8; PIECE]>().read();
        let tail = from.add(last).cast::<[u8; PIECE]>().read();
        to.cast::<[u8; PIECE]>().write(head);
        to.add(last).cast::<[u8; PIECE]>().write(tail);
    }
}
