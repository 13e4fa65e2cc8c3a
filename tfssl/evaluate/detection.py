"""Object detection: Model Garden's RetinaNet on our ResNet; AP in VOC's and COCO's sense."""

import contextlib
import io

import numpy as np
import tensorflow as tf

from tfssl.errors import BadInput
from tfssl.evaluate import inputs, metrics
from tfssl.evaluate.linear import refuse_diverged
from tfssl.evaluate.model_garden import backbone

IOU = 0.5


def detection(
    encoder,
    train,
    test,
    size=256,
    iterations=500,
    batch_size=8,
    learning_rate=1e-3,
    weight_decay=1e-4,
    frozen=False,
    width=64,
    convolutions=2,
    flip=True,
    classes=0,
    seed=0,
):
    """RetinaNet from `official.vision`, fine-tuned in tf_keras (Lin et al., ICCV 2017).

    Feature pyramid, focal loss (0.25, 1.5) and Huber loss, anchors of three scales and three
    shapes, non-maximum suppression at 0.5: all Model Garden's. Departures, for runs of minutes:
    heads of `convolutions` layers of `width` channels (the paper's: 4 of 256), Adam with cosine
    decay and gradients clipped to 10 instead of SGD, mirroring as the only augmentation, batch
    norms of the backbone frozen. Difficult (and crowd) objects are not trained on.

    Args:
        encoder: a Keras model as `tfssl.encoders.get("resnet18")` or `("resnet50")` builds it.
        train, test: unbatched datasets of dicts with `image` uint8 [H, W, 3], `boxes` [n, 4] (ymin,
            xmin, ymax, xmax in 0..1), `object_label` int [n] (below 0: nothing to be found) and
            perhaps `difficult` bool [n], such as `tfssl.pipelines.sources.annotated.boxed` gives of
            tfds:voc/2007, COCO's json, tables and `world`.
        size: longer side in pixels to which pictures are brought, padded to a square.
        iterations, batch_size, learning_rate, weight_decay: of the fit.
        frozen: the backbone does not train.
        width, convolutions: of the pyramid and the heads.
        flip: half of the training pictures are mirrored.
        classes: how many; 0: what the boxes hold, of training and test: what only the test shows is
            never found.
        seed: of the heads' weights, the order and the mirroring.

    Returns:
        dict: `AP50_11point` and `AP50_area`, PASCAL VOC's mean AP at IoU 0.5 as of 2007 and of
        2010; `AP`, `AP50`, `AP75`, COCO's; `ap_by_class` (area, None for a class without objects in
        the test set), `loss` (mean of the last tenth), and the settings.

    Raises:
        BadInput: an encoder that is none of our ResNets, data without boxes, or a loss that is not
            finite.
    """
    for part in (train, test):
        _require(part)
    inputs.refuse_other_kinds(encoder, "detection")
    small = tuple(encoder.get_layer("stem_conv").kernel_size) == (3, 3) if _ours(encoder) else False
    # The small stem's last map is eight times smaller than the picture, the large one's 32 times.
    levels = (2, 5) if small else (3, 7)
    side = -(-size // 2 ** levels[1]) * 2 ** levels[1]
    trunk = backbone(encoder, side)
    count = counted(train, test, classes)
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    model, task = retinanet(trunk, count, side, levels, width, convolutions)
    trunk.trainable = not frozen
    batches = _training(train, size, levels, batch_size, flip, seed)
    losses = _fit(model, task, batches, iterations, learning_rate, weight_decay)
    found, truth = _detect(model, test, size, side)
    return {
        **score(found, truth, count),
        "loss": float(np.mean(losses[-max(1, iterations // 10) :])),
        "size": size,
        "iterations": iterations,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "frozen": frozen,
        "width": width,
        "convolutions": convolutions,
        "flip": flip,
        "test_examples": len(truth),
        "test_objects": int(sum((~t["difficult"]).sum() for t in truth)),
        "classes": count,
    }


def counted(train, test, classes=0):
    """How many classes the boxes of both parts hold, or `classes`, where that is enough."""
    highest = [
        max((int(np.max(e["object_label"], initial=-1)) for e in part), default=-1)
        for part in (train, test)
    ]
    if highest[0] < 0:
        raise BadInput("the training set has no object: check the split, or its labels")
    if classes and max(highest) >= classes:
        raise BadInput(f"the boxes hold class {max(highest)}, but classes is {classes}")
    return classes or 1 + max(highest)


def _ours(encoder):
    return any(layer.name == "stem_conv" for layer in getattr(encoder, "layers", ()))


def _require(data):
    spec = getattr(data, "element_spec", None)
    needs = ("image", "boxes", "object_label")
    if not isinstance(spec, dict) or not all(key in spec for key in needs):
        has = ", ".join(spec) if isinstance(spec, dict) else type(data).__name__
        raise BadInput(f"detection needs a dataset of dicts with {', '.join(needs)}, not {has}")


def retinanet(trunk, classes, side, levels=(3, 7), width=256, convolutions=4):
    """(Model Garden's RetinaNet on a backbone, its task, which knows the losses).

    Model Garden counts the background as class 0, so that our class c is its class c + 1.
    """
    import tf_keras
    from official.vision.configs import common, decoders
    from official.vision.configs import retinanet as settings
    from official.vision.modeling import factory
    from official.vision.tasks.retinanet import RetinaNetTask

    described = settings.RetinaNet(
        num_classes=classes + 1,
        input_size=[side, side, 3],
        min_level=levels[0],
        max_level=levels[1],
        decoder=decoders.Decoder(type="fpn", fpn=decoders.FPN(num_filters=width)),
        head=settings.RetinaNetHead(num_convs=convolutions, num_filters=width),
        # Moving statistics must follow within a few hundred steps.
        norm_activation=common.NormActivation(norm_momentum=0.9, norm_epsilon=1e-3),
    )
    shape = tf_keras.layers.InputSpec(shape=[None, side, side, 3])
    model = factory.build_retinanet(shape, described, backbone=trunk)
    return model, RetinaNetTask(settings.RetinaNetTask(model=described))


def _training(train, size, levels, batch_size, flip, seed):
    """Endless batches (normalised images, what Model Garden's losses compare with)."""
    from official.vision.configs import retinanet as settings
    from official.vision.dataloaders.retinanet_input import Parser

    anchor = settings.Anchor()
    parser = Parser(
        [size, size],
        *levels,
        anchor.num_scales,
        anchor.aspect_ratios,
        anchor.anchor_size,
        dtype="float32",
    )
    parse = parser.parse_fn(is_training=True)

    def ready(number, example):
        image, boxes, labels, difficult = _plain(example)
        draw = tf.random.stateless_uniform([], tf.stack([tf.cast(seed, tf.int64), number]))
        if flip:
            turned = tf.stack([boxes[:, 0], 1 - boxes[:, 3], boxes[:, 2], 1 - boxes[:, 1]], 1)
            image = tf.cond(draw < 0.5, lambda: image[:, ::-1], lambda: image)
            boxes = tf.where(draw < 0.5, turned, boxes)
        return parse(
            {
                "image": image,
                "groundtruth_boxes": boxes,
                "groundtruth_classes": labels + 1,
                "groundtruth_is_crowd": difficult,
            }
        )

    data = train.shuffle(500, seed=seed).repeat().enumerate()
    return data.map(ready, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size).prefetch(2)


def _plain(example):
    """(image uint8, boxes, labels, difficult) of the objects that are there to be found."""
    boxes, labels = (
        tf.cast(example["boxes"], tf.float32),
        tf.cast(example["object_label"], tf.int64),
    )
    difficult = tf.cast(example.get("difficult", tf.zeros_like(labels)), tf.bool)
    there = (labels >= 0) & (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])
    image = example["image"]
    if image.dtype != tf.uint8:
        image = tf.image.convert_image_dtype(image, tf.uint8, saturate=True)
    return image, boxes[there], labels[there], difficult[there]


def _fit(model, task, batches, iterations, learning_rate, weight_decay):
    """Losses of every iteration."""
    import tf_keras

    rate = tf_keras.optimizers.schedules.CosineDecay(learning_rate, iterations)
    optimizer = tf_keras.optimizers.AdamW(rate, weight_decay=weight_decay)

    @tf.function
    def step(images, labels):
        with tf.GradientTape() as tape:
            outputs = model(images, training=True)
            loss = task.build_losses(outputs, labels)[0]
        variables = model.trainable_variables
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, variables), 10.0)
        optimizer.apply_gradients(zip(gradients, variables))
        return loss

    losses = [float(step(*batch)) for batch in batches.take(iterations)]
    refuse_diverged(losses)
    return losses


def _detect(model, test, size, side):
    """(detections, truths), a dict of arrays for every test picture, boxes in its pixels."""
    from official.vision.ops import preprocess_ops

    @tf.function
    def predict(image):
        image = preprocess_ops.normalize_image(image)
        image, info = preprocess_ops.resize_and_crop_image(image, [size, size], [side, side])
        image = tf.ensure_shape(image, [side, side, 3])
        outputs = model(image[None], image_shape=info[None, 1], training=False)
        boxes = outputs["detection_boxes"][0] / tf.tile(info[2], [2])
        return boxes, outputs["detection_scores"][0], outputs["detection_classes"][0]

    predict = predict.get_concrete_function(tf.TensorSpec([None, None, 3], tf.uint8))
    found, truth = [], []
    for example in test:
        image, boxes, labels, difficult = _plain(example)
        height, width = image.shape[:2]
        scale = np.array([height, width, height, width], np.float32)
        their, scores, kinds = (part.numpy() for part in predict(image))
        there = kinds > 0
        limited = np.clip(their[there], 0, scale)
        found.append({"boxes": limited, "scores": scores[there], "labels": kinds[there] - 1})
        truth.append(
            {
                "boxes": boxes.numpy() * scale,
                "labels": labels.numpy(),
                "difficult": difficult.numpy(),
                "size": (height, width),
            }
        )
    if not truth:
        raise BadInput("the test set is empty: there is nothing to evaluate on")
    return found, truth


def score(found, truth, classes):
    """AP of detections in VOC's and COCO's sense.

    Args:
        found: a dict a picture: `boxes` [d, 4] (ymin, xmin, ymax, xmax in pixels), `scores` [d],
            `labels` int [d].
        truth: a dict a picture: `boxes` [n, 4], `labels` int [n], `difficult` bool [n], `size`.
        classes: how many there are.

    Returns:
        dict: `AP50_11point`, `AP50_area`, `AP`, `AP50`, `AP75` and `ap_by_class`. A class without
        an object that is not difficult has no AP and is left out of the means.
    """
    each = {
        how: [voc_ap(found, truth, label, interpolation=how) for label in range(classes)]
        for how in ("11point", "area")
    }
    result = {f"AP50_{how}": _mean(values) for how, values in each.items()}
    result["ap_by_class"] = [None if np.isnan(value) else value for value in each["area"]]
    return {**result, **coco_ap(found, truth, classes)}


def _mean(values):
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else 0.0


def voc_ap(found, truth, label, interpolation="11point", iou=IOU):
    """PASCAL VOC's average precision of one class (Everingham et al. 2010, section 4.2).

    In the order of their scores, each detection takes the object of its class with the highest IoU
    among those not taken yet, if that is at least `iou`; what finds none is a false positive, what
    finds a difficult object counts neither way. Coordinates are continuous: the devkit's pixel
    that is added to every side is not. (The devkit looks among taken objects too, so that a second
    box on one object is a mistake there even where it covers another by half.)
    """
    rows = [
        (score, picture, box)
        for picture, part in enumerate(found)
        for score, kind, box in zip(part["scores"], part["labels"], part["boxes"])
        if kind == label
    ]
    rows.sort(key=lambda row: -row[0])
    objects = [part["boxes"][part["labels"] == label] for part in truth]
    difficult = [part["difficult"][part["labels"] == label] for part in truth]
    taken = [np.zeros(len(boxes), bool) for boxes in objects]
    scores, hits = [], []
    for value, picture, box in rows:
        overlaps = np.where(taken[picture], 0, overlap(box, objects[picture]))
        best = int(np.argmax(overlaps)) if len(overlaps) else -1
        if best >= 0 and overlaps[best] >= iou:
            if difficult[picture][best]:
                continue
            taken[picture][best] = True
            hits.append(1)
        else:
            hits.append(0)
        scores.append(value)
    positives = int(sum((~part).sum() for part in difficult))
    return metrics.average_precision(
        np.array(scores), np.array(hits), interpolation, positives=positives
    )


def overlap(box, boxes):
    """IoU [n] of one box [4] with boxes [n, 4]."""
    low = np.maximum(box[:2], boxes[:, :2])
    high = np.minimum(box[2:], boxes[:, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=1)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) + np.prod(box[2:] - box[:2])
    return both / np.maximum(areas - both, 1e-12)


def coco_ap(found, truth, classes):
    """COCO's AP (mean over IoU 0.5:0.05:0.95), AP50 and AP75, by pycocotools.

    Difficult objects are crowds there: found or not, they count neither way. All zero where the
    test set has no object.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    objects, detections = [], []
    for picture, (part, known) in enumerate(zip(found, truth), 1):
        for box, label, difficult in zip(known["boxes"], known["labels"], known["difficult"]):
            objects.append(
                {
                    **_coco_box(box, picture, label),
                    "id": len(objects) + 1,
                    "area": float(np.prod(box[2:] - box[:2])),
                    "iscrowd": int(difficult),
                }
            )
        for box, label, value in zip(part["boxes"], part["labels"], part["scores"]):
            detections.append({**_coco_box(box, picture, label), "score": float(value)})
    if not detections or all(entry["iscrowd"] for entry in objects):
        return {"AP": 0.0, "AP50": 0.0, "AP75": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # it reports to the terminal as it goes
        held = COCO()
        held.dataset = {
            "images": [
                {"id": i, "height": known["size"][0], "width": known["size"][1]}
                for i, known in enumerate(truth, 1)
            ],
            "annotations": objects,
            "categories": [{"id": label + 1, "name": str(label)} for label in range(classes)],
        }
        held.createIndex()
        measured = COCOeval(held, held.loadRes(detections), "bbox")
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    return {
        name: max(0.0, float(measured.stats[i])) for i, name in enumerate(("AP", "AP50", "AP75"))
    }


def _coco_box(box, picture, label):
    y1, x1, y2, x2 = (float(value) for value in box)
    return {
        "image_id": picture,
        "category_id": int(label) + 1,
        "bbox": [x1, y1, x2 - x1, y2 - y1],
    }
