//! From byte offsets to lines.

/// Where the lines of a text start.
#[derive(Debug)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    /// The lines of `text`.
    pub(super) fn new(text: &str) -> Self {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Self(std::iter::once(0).chain(breaks).collect())
    }

    /// Number of the line that holds the byte at `offset`, from 1.
    pub(super) fn number(&self, offset: usize) -> usize {
        self.0.partition_point(|&start| start <= offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_owns_its_break() {
        let lines = Lines::new("ab\n\ncd\n");
        let numbers: Vec<_> = (0..8).map(|offset| lines.number(offset)).collect();
        assert_eq!(numbers, [1, 1, 1, 2, 3, 3, 3, 4]);
    }
}
