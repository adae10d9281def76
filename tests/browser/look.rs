//! What a reader sees of each page, measured in the browser at three widths, light, dark and on paper.

use std::fs;

use serde_json::Value;
use tidemill::internals::of_json;

use crate::driver::{Browser, Scheme};

/// Pages by name: the results that they are made of.
const PAGES: [(&str, &str); 3] = [
    ("models", include_str!("models.json")),
    ("latency", include_str!("latency.json")),
    ("soak", include_str!("soak.json")),
];

const WIDTHS: [u32; 3] = [400, 800, 1_600];

/// Everything that is wrong with the page as it is shown now, a line each.
const FAULTS: &str = r#"
const faults = [];
const wide = document.documentElement.clientWidth;
if (document.documentElement.scrollWidth > wide) {
  faults.push('the page is ' + document.documentElement.scrollWidth + ' wide on ' + wide);
  for (const one of document.querySelectorAll('body *')) {
    if (!one.parentElement.closest('.scroll, svg') && one.getBoundingClientRect().right > wide + 0.5) {
      faults.push('wider than the page: ' + one.tagName + ' ' + one.textContent.slice(0, 40));
    }
  }
}
const names = new Set();
for (const one of document.querySelectorAll('[id]')) {
  if (names.has(one.id)) faults.push('twice: ' + one.id);
  names.add(one.id);
}
for (const link of document.querySelectorAll('a')) {
  const href = link.getAttribute('href');
  if (!href.startsWith('#') || !names.has(href.slice(1))) faults.push('leads nowhere: ' + href);
}
for (const svg of document.querySelectorAll('svg')) {
  const named = id => (document.getElementById(id) || {textContent: ''}).textContent.trim();
  const [title, description] = svg.getAttribute('aria-labelledby').split(' ').map(named);
  if (!title || !description) faults.push('a plot without a name: ' + title);
  const figure = svg.closest('figure');
  if (!figure || !figure.querySelector('figcaption') || !figure.querySelector('table')) {
    faults.push('no caption or no table: ' + title);
  }
  const box = svg.viewBox.baseVal, texts = [];
  for (const text of svg.querySelectorAll('text')) {
    const b = text.getBBox();
    if (b.x < box.x - 0.5 || b.y < box.y - 0.5 || b.x + b.width > box.x + box.width + 0.5
      || b.y + b.height > box.y + box.height + 0.5) {
      faults.push('cut off: "' + text.textContent + '" in ' + title);
    }
    for (const other of texts) {
      const wide = Math.min(b.x + b.width, other.b.x + other.b.width) - Math.max(b.x, other.b.x);
      const high = Math.min(b.y + b.height, other.b.y + other.b.height) - Math.max(b.y, other.b.y);
      if (wide > 1 && high > 3) {
        faults.push('one over the other: "' + text.textContent + '", "' + other.text + '" in ' + title);
      }
    }
    texts.push({b, text: text.textContent});
  }
  const scale = svg.getBoundingClientRect().width / box.width;
  if (scale < 0.85) faults.push('too small to read: ' + title + ' at ' + scale);
}
for (const scroll of document.querySelectorAll('.scroll')) {
  if (!scroll.hasAttribute('aria-label') || scroll.tabIndex !== 0) faults.push('a table that no key reaches');
}
return faults;
"#;

/// The least contrast of a text with what is behind it, as the standard for readable pages counts it, and a text that has it.
const CONTRAST: &str = r#"
const part = c => { c /= 255; return c <= 0.04045 ? c / 12.92 : Math.pow((c + 0.055) / 1.055, 2.4); };
const light = rgb => 0.2126 * part(rgb[0]) + 0.7152 * part(rgb[1]) + 0.0722 * part(rgb[2]);
const rgb = text => text.match(/[\d.]+/g).map(Number);
const behind = one => {
  for (let at = one; at; at = at.parentElement) {
    const found = rgb(getComputedStyle(at).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
};
let least = [99, ''];
for (const one of document.querySelectorAll('p, li, h1, h2, h3, a, th, td, dt, dd, strong, summary, svg text')) {
  const style = getComputedStyle(one);
  const [a, b] = [light(rgb(one.closest('svg') ? style.fill : style.color)), light(behind(one))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  if (contrast < least[0]) least = [contrast, one.textContent.slice(0, 40)];
}
return least;
"#;

fn check(browser: &Browser, page: &str) {
    let faults = browser.script(FAULTS);
    assert_eq!(faults, Value::Array(Vec::new()), "{page}");
    let contrast = browser.script(CONTRAST);
    assert!(contrast[0].as_f64().is_some_and(|found| found >= 4.5), "{page}: {contrast}");
    assert_eq!(browser.console(), Vec::<String>::new(), "{page}");
}

#[test]
fn pages_are_whole_and_readable_at_every_width_light_and_dark() {
    let Some(browser) = Browser::start() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    for (name, results) in PAGES {
        let file = directory.path().join(format!("{name}.html"));
        fs::write(&file, of_json(results).expect("results")).expect("a page");
        browser.open(&file);
        for width in WIDTHS {
            for scheme in [Scheme::Light, Scheme::Dark] {
                browser.shape(width, scheme);
                let shown = format!("{name}-{width}-{scheme:?}").to_lowercase();
                browser.picture(&shown);
                check(&browser, &shown);
            }
        }
        // Tables that are open must fit, too.
        browser.shape(WIDTHS[0], Scheme::Light);
        browser.script("document.querySelectorAll('details').forEach(one => { one.open = true; })");
        check(&browser, &format!("{name} with its tables open"));
        browser.as_on_paper();
        browser.picture(&format!("{name}-paper"));
        check(&browser, &format!("{name} on paper"));
    }
}

#[test]
fn a_page_with_faults_is_found_out() {
    let Some(browser) = Browser::start() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("faults.html");
    let page = "<p style='width:900px;color:#999'>wide</p><a href='#nowhere'>x</a><script>console.error('told')</script>\
        <svg viewBox='0 0 10 10' width=10 aria-labelledby='a b'><text x=5 y=5>cut off</text></svg><div class=scroll></div>";
    fs::write(
        &file,
        format!("<!DOCTYPE html><meta charset=utf-8><link rel=icon href=data:,>{page}"),
    )
    .expect("a page");
    browser.shape(400, Scheme::Light);
    browser.open(&file);
    let faults = browser.script(FAULTS).to_string();
    for fault in
        ["wider than", "leads nowhere", "without a name", "no caption", "cut off", "no key reaches"]
    {
        assert!(faults.contains(fault), "{fault}: {faults}");
    }
    assert!(browser.script(CONTRAST)[0].as_f64().is_some_and(|found| found < 4.5));
    assert!(browser.console().iter().any(|line| line.contains("told")));
}
