//! Looks: one place of the palette is a colour, a marker and a dash, so that no series is told by its colour alone. The
//! colours stand in `plot.css`. Pure; any thread.

use super::svg::Point;

/// The number of looks; those after the last one begin again.
const LOOKS: u8 = 8;

/// The look of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    place: u8,
    echo: bool,
}

impl Look {
    /// The look at a place of the palette.
    pub(crate) const fn new(place: u8) -> Look {
        Look { place: place % LOOKS, echo: false }
    }

    /// The same colour and marker, hollow and on a dotted line: for the same subject a second time.
    pub(crate) const fn echo(self) -> Look {
        Look { echo: true, ..self }
    }

    /// The class of its colour and dash in the style sheet.
    pub(super) fn class(self) -> String {
        format!("c{}{}", self.place, if self.echo { " echo" } else { "" })
    }

    /// The outline of its marker around a point.
    pub(super) fn marker(self, at: Point, radius: f64) -> String {
        let Point { x, y } = at;
        let r = radius;
        let corners: &[(f64, f64)] = match self.place {
            1 => &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            2 => &[(0.0, -1.2), (1.1, 0.9), (-1.1, 0.9)],
            3 => &[(0.0, -1.35), (1.35, 0.0), (0.0, 1.35), (-1.35, 0.0)],
            4 => &[(0.0, 1.2), (1.1, -0.9), (-1.1, -0.9)],
            5 => &CROSS,
            6 => &[(-1.3, -0.6), (1.3, -0.6), (1.3, 0.6), (-1.3, 0.6)],
            7 => &[(-0.6, -1.3), (0.6, -1.3), (0.6, 1.3), (-0.6, 1.3)],
            _ => {
                let left = x - r;
                let width = 2.0 * r;
                return format!(
                    "M{left:.1} {y:.1}a{r} {r} 0 1 0 {width} 0a{r} {r} 0 1 0 -{width} 0z"
                );
            }
        };
        let corner =
            |(dx, dy): &(f64, f64)| format!("{:.1} {:.1}", dx.mul_add(r, x), dy.mul_add(r, y));
        let corners: Vec<String> = corners.iter().map(corner).collect();
        format!("M{}z", corners.join("L"))
    }
}

/// The corners of a plus sign.
const CROSS: [(f64, f64); 12] = [
    (-0.45, -1.3),
    (0.45, -1.3),
    (0.45, -0.45),
    (1.3, -0.45),
    (1.3, 0.45),
    (0.45, 0.45),
    (0.45, 1.3),
    (-0.45, 1.3),
    (-0.45, 0.45),
    (-1.3, 0.45),
    (-1.3, -0.45),
    (-0.45, -0.45),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_looks_have_the_same_marker() {
        let at = Point { x: 0.0, y: 0.0 };
        let markers: BTreeSet<_> = (0..LOOKS).map(|n| Look::new(n).marker(at, 4.0)).collect();
        assert_eq!(markers.len(), usize::from(LOOKS));
        assert_eq!(Look::new(LOOKS + 2), Look::new(2));
    }
}
