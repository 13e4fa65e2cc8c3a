"""The report on what lies near what: the map of the features and nearest neighbours."""

import numpy as np

from tfssl.layers.kmeans import unit_rows
from tfssl.report.charts import escape, number, scatter
from tfssl.report.parts import about, colour, data_uri, legend, note
from tfssl.report.runs import saw_labels
from tfssl.report.style import SERIES

MOST_POINTS = 700  # t-SNE of these takes three seconds
FEWEST_FOR_TSNE = 30  # fewer points have no neighbourhoods to keep
MOST_CLASSES = 2 * SERIES
MOST_QUERIES = 6


def maps(found):
    """A map of each run's features in the plane."""
    figures, styles = [], {}
    for r in found:
        features = r.arrays.get("features")
        if features is None or features.ndim != 2 or len(features) < 2:
            figures.append(note(about(r, found, "no features were gathered, so there is no map.")))
            continue
        if not np.isfinite(features).all():
            figures.append(note(about(r, found, "some features are not finite: no map.")))
            continue
        figures.append(_map(r, found, styles))
    key = ""
    if styles and len(styles) <= MOST_CLASSES:
        key = legend([(style, name) for name, style in styles.items()])
    elif styles:
        key = note(f"{len(styles)} classes: colours repeat, so there is no legend.")
    return key + f'<div class="grid-of maps">{"".join(figures)}</div>'


def _map(r, found, styles):
    features = r.arrays["features"]
    chosen = np.arange(len(features))
    if len(features) > MOST_POINTS:
        chosen = np.unique(np.linspace(0, len(features) - 1, MOST_POINTS).astype(int))
    points, how = _flat(features[chosen])
    label = r.arrays.get("label")
    words = f"map by {how} of {len(chosen)} examples, features of unit length"
    if label is not None and label.shape == (len(features),):
        names, groups = _class_names(r.arrays), []
        for value in np.unique(label):
            name = names.get(value, str(value))
            styles.setdefault(name, colour(len(styles)))
            groups.append((styles[name], label[chosen] == value))
        words += f", coloured by label{'' if saw_labels(r) else 's that training never saw'}"
    else:
        groups = [("s0", np.ones(len(chosen), bool))]
        words += "; there are no labels to colour it by"
    chart = scatter(points, groups, f"Features, {words}")
    return (
        f'<figure><div class="map">{chart}</div><figcaption>'
        f"{escape(about(r, found, words))}.</figcaption></figure>"
    )


def _class_names(arrays):
    return {i: str(name) for i, name in enumerate(arrays.get("classes", ()))}


def _flat(features):
    """(points [N, 2], how): t-SNE where there are neighbourhoods to keep, PCA otherwise."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # scikit-learn brings it

    unit = unit_rows(features)
    spread = float(unit.std(0).max())
    parts = min(50, *unit.shape)
    if len(unit) < FEWEST_FOR_TSNE or parts < 2 or spread < 1e-6:
        flat = unit - unit.mean(0)
        if parts >= 2 and spread >= 1e-6:
            flat = PCA(2, random_state=0).fit_transform(unit)
        flat = np.pad(flat, [(0, 0), (0, max(0, 2 - flat.shape[1]))])[:, :2]
        return flat, "PCA"
    reduced = PCA(parts, random_state=0).fit_transform(unit)  # the usual first step, for speed
    perplexity = min(30.0, (len(unit) - 1) / 3)
    start = reduced[:, :2] / max(float(reduced[:, 0].std()), 1e-12) * 1e-4
    tsne = TSNE(2, perplexity=perplexity, init=start, learning_rate="auto", random_state=0)
    with threadpool_limits(1):  # on a busy machine two threads wait for each other ten times longer
        return tsne.fit_transform(reduced), f"t-SNE (perplexity {number(perplexity)})"


def neighbours(found):
    """For a few examples of each run those whose features are most like theirs."""
    figures = []
    for r in found:
        arrays = r.arrays
        shown = {"thumbnails", "texts"} & set(arrays)
        if not {"queries", "neighbours"} <= set(arrays) or not shown:
            figures.append(note(about(r, found, "no neighbours were gathered.")))
            continue
        head = f"<h3>{escape(r.name)}</h3>" if len(found) > 1 else ""
        rows = "".join(
            _neighbour_row(arrays, q, row, head_of)
            for head_of, (q, row) in enumerate(
                list(zip(arrays["queries"], arrays["neighbours"]))[:MOST_QUERIES]
            )
        )
        figures.append(f"<div>{head}{rows}{_agreement(arrays)}</div>")
    words = (
        "First in each row an example (framed), then those whose features are most like its own; "
        "the number is their cosine similarity."
    )
    if any("label" in r.arrays for r in found):
        told = "" if any(map(saw_labels, found)) else ", which the encoder was never told"
        words += f" A tick: the same class{told}."
    wide = ' style="grid-template-columns:1fr"' if len(found) == 1 else (
        ' style="grid-template-columns:repeat(auto-fill,minmax(min(440px,100%),1fr))"'
    )  # fmt: skip
    words = note(words) if any("neighbours" in r.arrays for r in found) else ""
    return words + f'<div class="grid-of"{wide}>{"".join(figures)}</div>'


def _neighbour_row(arrays, query, neighbours, row):
    similarities = arrays.get("similarities")
    label = arrays.get("label")
    names = _class_names(arrays)
    # features in a narrow cone are all alike in two digits
    digits = 4 if similarities is not None and np.min(similarities) > 0.98 else 2

    def class_of(i):
        return names.get(label[i], str(label[i])) if label is not None else ""

    def words(rank, i):
        text = (
            f"{similarities[row][rank]:.{digits}f}" if similarities is not None else f"{rank + 1}."
        )
        if label is not None:
            text += " ✓" if label[i] == label[query] else " ✗"
        return text

    if "texts" in arrays:
        items = "".join(
            f"<li>{escape(arrays['texts'][i])} <small>{words(rank, i)}</small></li>"
            for rank, i in enumerate(neighbours)
        )
        return (
            f"<p><strong>{escape(arrays['texts'][query])}</strong></p>"
            f'<ol class="quotes">{items}</ol>'
        )
    of_class = f" of class {class_of(query)}" if label is not None else ""
    items = [_thumbnail(arrays, query, f"Query{of_class}", class_of(query) or "query", "query")]
    for rank, i in enumerate(neighbours):
        of_class = f" of class {class_of(i)}" if label is not None else ""
        items.append(_thumbnail(arrays, i, f"Neighbour {rank + 1}{of_class}", words(rank, i)))
    return f'<ul class="near" style="--columns:{len(items)}">{"".join(items)}</ul>'


def _thumbnail(arrays, i, alt, words, style=""):
    from PIL import Image

    source = data_uri(Image.fromarray(np.asarray(arrays["thumbnails"][i], np.uint8)))
    style = f' class="{style}"' if style else ""
    return f'<li{style}><img src="{source}" alt="{escape(alt)}">{escape(words)}</li>'


def _agreement(arrays):
    """How often the very nearest example has the same label, over all that were gathered."""
    label, features = arrays.get("label"), arrays.get("features")
    if label is None or features is None or not np.isfinite(features).all():
        return ""
    unit = unit_rows(features)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -np.inf)
    share = float(np.mean(label[similarity.argmax(1)] == label))
    counts = np.unique(label, return_counts=True)[1]
    chance = float(np.sum(counts * (counts - 1)) / max(len(label) * (len(label) - 1), 1))
    return note(
        f"Over all {len(label)} gathered examples the nearest one has the same class in "
        f"{100 * share:.0f}\u00a0% of cases ({100 * chance:.0f}\u00a0% would be chance)."
    )
