//! Plans for people.

use std::fmt;

use super::step::{Memory, Plan, Source, Span, Step};

impl fmt::Display for Span {
    /// `in[3]`; `out[2; 3]` for 2, 3, 4; `scratch0[1; 3 by 2]` for 1, 2, 5.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.memory {
            Memory::Input => f.write_str("in")?,
            Memory::Output => f.write_str("out")?,
            Memory::Scratch(bank) => write!(f, "scratch{bank}")?,
            Memory::Board(bank) => write!(f, "board{bank}")?,
        }
        match (self.run, self.count) {
            (0, 1) => write!(f, "[{}]", self.first),
            (0, count) => write!(f, "[{}; {count}]", self.first),
            (run, count) => write!(f, "[{}; {count} by {run}]", self.first),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(span) => span.fmt(f),
            Self::From(rank) => write!(f, "from {rank}"),
        }
    }
}

impl Step {
    /// What such a step is called.
    pub fn name(&self) -> &'static str {
        let (sources, finish, into, to) = match self {
            Self::Post(_) => return "post",
            Self::Join(_) => return "join",
            Self::Signal(_) => return "signal",
            Self::Await(_) => return "await",
            Self::Move { sources, finish, into, to } => (sources.as_slice(), finish, into, to),
        };
        match (sources, into, to.is_empty()) {
            ([Source::Local(_)], None, _) => "send",
            ([Source::Local(_)], Some(_), true) if *finish => "finish",
            ([Source::Local(_)], Some(_), true) => "copy",
            ([Source::Local(_)], Some(_), false) => "copy-send",
            ([Source::From(_)], Some(_), true) => "recv",
            ([Source::From(_)], _, _) => "relay",
            (_, _, true) => "reduce",
            (_, _, false) => "reduce-send",
        }
    }
}

impl fmt::Display for Step {
    /// `reduce-send: from 2 + in[5] -> finish -> out[5] -> to 4`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        let (sources, finish, into, to) = match self {
            Self::Post(lane) | Self::Join(lane) => return write!(f, ": lane {lane}"),
            Self::Signal(rank) => return write!(f, ": to {rank}"),
            Self::Await(rank) => return write!(f, ": from {rank}"),
            Self::Move { sources, finish, into, to } => (sources, finish, into, to),
        };
        for (index, source) in sources.iter().enumerate() {
            write!(f, "{}{source}", if index == 0 { ": " } else { " + " })?;
        }
        if *finish {
            f.write_str(" -> finish")?;
        }
        if let Some(span) = into {
            write!(f, " -> {span}")?;
        }
        for (index, rank) in to.iter().enumerate() {
            write!(f, "{}{rank}", if index == 0 { " -> to " } else { ", " })?;
        }
        Ok(())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, width, scratch, board, lends, .. } = self;
        let lends = if *lends { "may lend" } else { "copies" };
        write!(f, "{blocks} blocks, steps up to {width} wide, {scratch} scratch banks, ")?;
        if *board > 0 {
            write!(f, "{board} board banks, ")?;
        }
        writeln!(f, "{lends}")?;
        for (index, lane) in self.lanes.iter().enumerate() {
            writeln!(f, "  lane {index} on channel {}", lane.channel)?;
            for (number, step) in lane.steps.iter().enumerate() {
                writeln!(f, "  {number:5}  {step}")?;
            }
        }
        Ok(())
    }
}
