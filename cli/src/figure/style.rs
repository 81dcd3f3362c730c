//! Owns the colours and marks of a figure.

/// Colours, and marks. Every series has a pair of its own: each time the colours begin again, the marks
/// are one further.
pub(super) const N_SERIES: usize = 7;

/// Colours by name where the ground is light, and where it is dark.
const LIGHT: [(&str, &str); 11] = [
    ("ground", "#ffffff"),
    ("text", "#1f2328"),
    ("faint", "#59636e"),
    ("grid", "#e3e6ea"),
    ("s0", "#0072b2"),
    ("s1", "#d55e00"),
    ("s2", "#00805e"),
    ("s3", "#b0538a"),
    ("s4", "#8a6d00"),
    ("s5", "#2a8fcb"),
    ("s6", "#444444"),
];
const DARK: [(&str, &str); 11] = [
    ("ground", "#15181c"),
    ("text", "#e6e9ed"),
    ("faint", "#9aa4af"),
    ("grid", "#2b3138"),
    ("s0", "#56b4e9"),
    ("s1", "#f08a3c"),
    ("s2", "#2cc295"),
    ("s3", "#e39ac6"),
    ("s4", "#f0e442"),
    ("s5", "#3b9de0"),
    ("s6", "#d0d0d0"),
];

/// Rules in the colours' names.
const RULES: &str = "
.title { font-size: 15px; font-weight: 600; }
.heading { font-weight: 600; }
.tick, .note { fill: var(--faint); }
.middle { text-anchor: middle; } .end { text-anchor: end; }
.ground { fill: var(--ground); }
.frame { fill: none; stroke: var(--faint); }
.grid { stroke: var(--grid); }
.mark { stroke-width: 1.5; fill: var(--ground); fill-opacity: 0.75; }
.line { fill: none; stroke-width: 2; }
.dashed { stroke-dasharray: 6 5; }
.plain { stroke: var(--faint); stroke-width: 1.2; }
.band { stroke: none; fill-opacity: 0.16; }
.s0 { stroke: var(--s0); } .s1 { stroke: var(--s1); } .s2 { stroke: var(--s2); } .s3 { stroke: var(--s3); }
.s4 { stroke: var(--s4); } .s5 { stroke: var(--s5); } .s6 { stroke: var(--s6); }
.f0 { fill: var(--s0); fill-opacity: 1; } .f1 { fill: var(--s1); fill-opacity: 1; }
.f2 { fill: var(--s2); fill-opacity: 1; } .f3 { fill: var(--s3); fill-opacity: 1; }
.f4 { fill: var(--s4); fill-opacity: 1; } .f5 { fill: var(--s5); fill-opacity: 1; }
.f6 { fill: var(--s6); fill-opacity: 1; }
.b0 { fill: var(--s0); } .b1 { fill: var(--s1); } .b2 { fill: var(--s2); } .b3 { fill: var(--s3); }
.b4 { fill: var(--s4); } .b5 { fill: var(--s5); } .b6 { fill: var(--s6); }
";

/// The style of a figure that a reader opens: light by default, dark where the reader prefers it.
pub(super) fn for_readers() -> String {
    let named = |colours: &[(&str, &str)]| -> String {
        let one = |(name, value): &(&str, &str)| format!("--{name}: {value};");
        colours.iter().map(one).collect::<Vec<_>>().join(" ")
    };
    format!(
        "
svg {{ {} }}
@media (prefers-color-scheme: dark) {{ svg {{ {} }} }}
text {{ font: 12px system-ui, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif; fill: var(--text); }}{RULES}",
        named(&LIGHT),
        named(&DARK)
    )
}

/// The style of a figure that is drawn here: light, with the colours in place of their names, in the one font that
/// comes along. It is wider than those of readers, so its letters are smaller.
pub(super) fn for_drawing(font: &str) -> String {
    let text = "text { font-family: FONT; font-size: 11px; fill: var(--text); }";
    let rules = format!("\n{}{RULES}", text.replace("FONT", &format!("'{font}'")));
    let put = |rules: String, (name, value): &(&str, &str)| {
        rules.replace(&format!("var(--{name})"), value)
    };
    LIGHT.iter().fold(rules, put)
}

/// A mark of the series' shape, which tells it apart without colour.
pub(super) fn mark(series: usize, (x, y): (f64, f64), is_filled: bool) -> String {
    let one = series % N_SERIES;
    let class = if is_filled { format!("mark s{one} f{one}") } else { format!("mark s{one}") };
    let path = |corners: &[(f64, f64)]| {
        let points: Vec<String> =
            corners.iter().map(|(dx, dy)| format!("{:.2},{:.2}", x + dx, y + dy)).collect();
        format!("<polygon class=\"{class}\" points=\"{}\"/>\n", points.join(" "))
    };
    match (series + series / N_SERIES) % N_SERIES {
        0 => format!("<circle class=\"{class}\" cx=\"{x:.2}\" cy=\"{y:.2}\" r=\"3.6\"/>\n"),
        1 => path(&[(0.0, -4.6), (4.4, 3.2), (-4.4, 3.2)]),
        2 => path(&[(-3.3, -3.3), (3.3, -3.3), (3.3, 3.3), (-3.3, 3.3)]),
        3 => path(&[(0.0, -4.8), (4.8, 0.0), (0.0, 4.8), (-4.8, 0.0)]),
        4 => path(&[(0.0, 4.6), (4.4, -3.2), (-4.4, -3.2)]),
        5 => path(&[(-4.6, 0.0), (3.2, -4.4), (3.2, 4.4)]),
        _ => path(&[(4.6, 0.0), (-3.2, -4.4), (-3.2, 4.4)]),
    }
}

/// The head of an arrow beside a mark, up or down.
pub(super) fn arrow(series: usize, (x, y): (f64, f64), is_up: bool) -> String {
    const WIDE: f64 = 4.2;
    let (near, tip) = if is_up { (y - 5.5, y - 9.5) } else { (y + 5.5, y + 9.5) };
    format!(
        "<polyline class=\"line s{}\" points=\"{:.2},{near:.2} {x:.2},{tip:.2} {:.2},{near:.2}\"/>\n",
        series % N_SERIES,
        x - WIDE,
        x + WIDE
    )
}

/// About how wide a text is, in pixels, at 12 pixels a letter's height.
pub(super) fn width(text: &str) -> f64 {
    6.6 * text.chars().count() as f64
}
