"""Videos and sounds, decoded by ffmpeg through PyAV, with the two streams on one clock."""

import collections
import math
import os

import numpy as np

from tfssl.pipelines.sources.images import Unreadable, reason

# What ffmpeg takes pictures, captions and plain text for; none of them is a video.
NOT_MEDIA = ("image2", "_pipe", "tty", "gif", "apng", "srt", "ass", "webvtt", "concat", "hls")
# Formats whose headers know how long the file should be, so that a cut one shows.
KNOWS_LENGTH = ("mov", "avi", "wav", "flac")
ENOUGH = 0.9
UNKNOWN = 2**31 - 2**16
# So many seconds may packets of sound come late before the pause is filled: stamps are rounded.
GAP = 0.05
SAME_RATE = 0.01
MICROSECONDS = 1e6
DEFAULT_FPS = 25.0


def read(record, wants):
    """The video and sound of one record -> {frames, frame_times, fps, audio, sample_rate}.

    Args:
        record: `records.Record` with a file for `video`, for `audio`, or both.
        wants: (keys, short_side, max_frames, sample_rate) as `sources.load` has them.

    Raises:
        Unreadable: with the reason. Where `keys` names `audio`, also for a video without sound.
    """
    keys, short_side, max_frames, sample_rate = wants
    example, start, end = {}, record.start or 0.0, record.end
    if "video" in record.files:
        example = video(
            record.files["video"],
            frames="frames" in keys or not keys,
            audio=("audio" in keys or not keys) and "audio" not in record.files,
            short_side=short_side,
            max_frames=max_frames,
            sample_rate=sample_rate,
            start=start,
            end=end,
        )
    start = example.pop("begins", start)
    if "audio" in record.files and ("audio" in keys or not keys or not example):
        seconds = duration(example)
        until = end if seconds is None else start + seconds
        samples = sound(record.files["audio"], sample_rate, start, until)
        if seconds is not None:
            samples = fitted(samples, round(seconds * sample_rate))
        example["audio"] = samples
    if "audio" in keys and "audio" not in example:
        raise Unreadable("it has no sound")
    if "audio" in example:
        example["sample_rate"] = np.int64(sample_rate)
    example.pop("audio_offset", None)
    if not example:
        raise Unreadable("nothing that is asked for")
    return example


def silence(example, sample_rate):
    """The zeros that stand for the sound of a clip without any, as long as its frames."""
    samples = np.zeros([round(duration(example) * sample_rate)], np.float32)
    return {"audio": samples, "sample_rate": np.int64(sample_rate)}


def duration(example):
    """Seconds from frame 0 to the end of the last frame; None without frames."""
    if "frame_times" not in example:
        return None
    return float(example["frame_times"][-1]) + 1 / float(example["fps"])


def fitted(samples, length):
    """Samples [N] cut or padded with zeros at their end to [length]."""
    return np.pad(samples[:length], (0, max(0, length - len(samples))))


def video(
    path,
    frames=True,
    audio=True,
    short_side=128,
    max_frames=None,
    sample_rate=16000,
    start=0.0,
    end=None,
    each=None,
):
    """Decode a video file once, both streams together.

    Args:
        path: the file.
        frames: whether pictures are wanted; without them only frame 0's time is looked for, and
            the sound is taken to its end.
        audio: whether sound is wanted.
        short_side: pixels to which frames are scaled down (never up); None keeps their size.
        max_frames: decoding stops after so many frames; None decodes all.
        sample_rate: Hz of the sound, the mean of its channels.
        start, end: seconds after the file's frame 0; the clip between them is meant.
        each: applied to every frame (uint8 [H, W, 3]) as it comes, so that long videos need not
            fit in memory; frames are then the list of its results.

    Returns:
        `frames` uint8 [T, H, W, 3], `frame_times` float32 [T] (seconds after the first of them),
        `fps` float32, `begins` (seconds from the file's frame 0 to the first of them), and where
        the file has a sound that is not all zeros, `audio` float32 [N]
        which begins with the first frame and ends with the last: where the stream began later
        it is padded, where earlier cut. `audio_offset` float32: when it began, in seconds.

    Raises:
        Unreadable: with the reason.
    """
    container = opened(path)
    with container:
        if not container.streams.video:
            raise Unreadable("it holds no video stream")
        stream = container.streams.video[0]
        streams = [stream]
        stream.codec_context.thread_count = 1
        mixer = None
        if audio and container.streams.audio:
            streams.append(container.streams.audio[0])
            mixer = Mixer(sample_rate)
        nominal = float(stream.average_rate or stream.guessed_rate or 0)
        aspect = float(stream.sample_aspect_ratio or 1)
        pictures, times, zero, time, seen, enough = [], [], None, None, 0, False
        until = math.inf  # on the file's clock: sound after it is not needed
        packets = collections.defaultdict(list)
        for frame in decoded(container, streams, "video", packets):
            if hasattr(frame, "samples"):
                mixer.add(frame)
                if mixer.until >= until:
                    break
                continue
            if enough:
                continue
            time = frame.time
            if time is None:
                time = (zero or 0.0) + seen / (nominal or DEFAULT_FPS)
            zero = time if zero is None else zero
            seen += 1
            if not frames:
                enough = True
                until = math.inf if end is None else zero + end
                stream.codec_context.skip_frame = "ALL"
            elif end is not None and time - zero >= end:
                enough = True
            elif time - zero >= start - 1e-6:
                picture = upright(frame, short_side, aspect)
                pictures.append(each(picture) if each else picture)
                times.append(time)
                enough = max_frames is not None and len(times) >= max_frames
            if enough and frames:
                until = (times[-1] if times else time) + 1
            if enough and mixer is None:
                break
        expected, promised = stream.frames, length(container, stream)
        if not frames and mixer and end is None:
            seen, time, enough = len(packets["video"]), max(packets["video"], default=0.0), False
    if zero is None:
        raise Unreadable("no frame can be decoded")
    # An edit list hides frames, a recorder of the screen leaves some out: time must be missing too.
    shown = time - zero + 1 / (nominal or DEFAULT_FPS)
    if not enough and seen < ENOUGH * expected and shown < ENOUGH * promised:
        raise Unreadable(f"cut short: {seen} of {expected} frames")
    example, first = {}, zero + start
    if frames:
        if not times and enough:
            raise Unreadable(f"no frame lies between {start:g} and {end:g} s")
        if not times:
            raise Unreadable(f"the clip begins at {start:g} s, after the last frame")
        first = times[0]
        if not each and len({p.shape for p in pictures}) > 1:
            raise Unreadable("the size of its frames changes")
        example["frames"] = pictures if each else np.stack(pictures)
        example["frame_times"] = (np.asarray(times, np.float64) - first).astype(np.float32)
        example["fps"] = np.float32(rate(times, nominal))
        example["begins"] = float(first - zero)
    samples = mixer.samples() if mixer else np.zeros([0], np.float32)
    if samples.any():
        shift = round((mixer.begins - first) * sample_rate)
        samples = np.pad(samples, (max(0, shift), 0))[max(0, -shift) :]
        if frames:
            samples = fitted(samples, round(duration(example) * sample_rate))
        elif end is not None:
            samples = samples[: round((end - start) * sample_rate)]
        example["audio"] = samples
        example["audio_offset"] = np.float32(mixer.begins - first)
    return example


def sound(path, sample_rate=16000, start=0.0, end=None):
    """Decode a sound file -> float32 [N], mono, in [-1, 1], from its first sample on.

    Args:
        path: the file.
        sample_rate: Hz.
        start, end: seconds; the part between them is returned.

    Raises:
        Unreadable: also for sound that is silent or holds NaN throughout or in part.
    """
    mixer = Mixer(sample_rate)
    with opened(path) as container:
        if not container.streams.audio:
            raise Unreadable("it holds no sound")
        stream = container.streams.audio[0]
        for frame in decoded(container, [stream], "sound", collections.defaultdict(list)):
            mixer.add(frame)
        promised = length(container, stream)
        name = container.format.name
    samples = mixer.samples()
    if not samples.size:
        raise Unreadable("it holds no samples")
    if name == "wav":
        whole_wav(path)
    if len(samples) < ENOUGH * promised * sample_rate:
        raise Unreadable(f"cut short: {len(samples) / sample_rate:.2f} of {promised:.2f} s")
    if not samples.any():
        cancelled = "its channels cancel each other: their mean is zero throughout"
        raise Unreadable(cancelled if mixer.loudest else "it is silent: every sample is zero")
    samples = samples[
        round(start * sample_rate) : None if end is None else round(end * sample_rate)
    ]
    if not samples.size:
        raise Unreadable(f"the clip begins at {start:g} s, after the end")
    return samples


def length(container, stream):
    """Seconds that a stream should last by the file's headers; 0.0 where they do not know."""
    if not any(name in container.format.name for name in KNOWS_LENGTH):
        return 0.0
    if container.format.name == "avi" and stream.type == "video" and stream.average_rate:
        return float(stream.frames / stream.average_rate)  # the durations are of what is there
    known = [stream.duration and float(stream.duration * stream.time_base)]
    known.append(container.duration and container.duration / MICROSECONDS)
    return min(filter(None, known), default=0.0)


def whole_wav(path):
    """Raises Unreadable where fewer bytes follow than a WAV's header promises.

    ffmpeg goes by those that are there. Lengths that a stream did not know are near 2^31 or 2^32.
    """
    with open(path, "rb") as file:
        file.seek(12)
        while len(head := file.read(8)) == 8:
            promised = int.from_bytes(head[4:], "little")
            if head[:4] == b"data":
                there = os.path.getsize(path) - file.tell()
                if promised < UNKNOWN and there < ENOUGH * promised:
                    raise Unreadable(f"cut short: {there} of {promised} bytes of sound")
                return
            file.seek(promised + promised % 2, os.SEEK_CUR)


def opened(path):
    """A PyAV container that is a video or a sound, whatever the file's name says."""
    import av

    if os.path.getsize(path) == 0:
        raise Unreadable("empty file")
    try:
        container = av.open(str(path))
    except Exception as error:
        raise Unreadable("not a video or sound: " + plain(error)) from None
    if any(name in container.format.name for name in NOT_MEDIA):
        name = container.format.name
        container.close()
        raise Unreadable(f"not a video or sound but {name}")
    return container


def decoded(container, streams, what, packets):
    """Frames of the streams in the order they lie in the file; a few bad packets are forgiven.

    `packets`, a defaultdict(list), is to hold the time in seconds of each, by type of stream.
    """
    import av

    bad, error = 0, None
    try:
        for packet in container.demux(streams):
            if packet.size > 0:
                time = packet.pts * packet.time_base if packet.pts is not None else 0
                packets[packet.stream.type].append(float(time))
            try:
                yield from packet.decode()
            except av.error.FFmpegError as fault:
                bad, error = bad + 1, fault
    except av.error.FFmpegError as fault:
        raise Unreadable(plain(fault)) from None
    total = sum(map(len, packets.values()))
    if bad > (1 - ENOUGH) * total:
        raise Unreadable(f"{bad} of {total} packets of {what} are damaged: {plain(error)}")


def plain(error):
    """ffmpeg's own words, without the number and the path that PyAV puts around them."""
    return getattr(error, "strerror", None) or reason(error)


def upright(frame, short_side, aspect=1.0):
    """A video frame as uint8 [H, W, 3], scaled down, turned as the file says.

    `aspect` is a pixel's width over its height; where it is not 1 the width is changed.
    """
    width, height = frame.width * aspect, frame.height
    scale = 1.0 if short_side is None else min(1.0, short_side / min(width, height))
    width, height = max(1, round(width * scale)), max(1, round(height * scale))
    picture = frame.to_ndarray(
        format="rgb24", width=width, height=height, interpolation="AREA" if scale < 1 else None
    )
    matrix = frame.side_data.get("DISPLAYMATRIX")
    return picture if matrix is None else displayed(picture, np.frombuffer(matrix, np.int32))


def displayed(picture, matrix):
    """A picture [H, W, 3] turned by quarters and mirrored as ffmpeg's display matrix [9] says.

    The pixel (x, y) is to be seen at (a x + c y, b x + d y), where the matrix begins a b . c d.
    """
    a, b, _, c, d = (int(value) for value in matrix[:5])
    if abs(a) + abs(d) < abs(b) + abs(c):
        picture, a, d = picture.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])


def rate(times, nominal):
    """Frames a second: the file's own figure where most frames keep to it, else as measured."""
    steps = np.diff(times)
    if not len(steps) or steps.sum() <= 0:
        return nominal or DEFAULT_FPS
    if abs(np.median(steps) * nominal - 1) <= SAME_RATE:
        return nominal
    return len(steps) / float(steps.sum())


class Mixer:
    """Gathers decoded sound: the mean of its channels, one rate, pauses between packets silent.

    Where packets overlap all of both is kept: a clock that starts anew looks the same.
    """

    def __init__(self, sample_rate):
        self.sample_rate = sample_rate
        self.begins = None  # seconds, on the file's clock
        self.until = -math.inf  # where what was added so far ends, on that clock
        self.parts = []
        self.length = 0
        self.loudest = 0.0  # of all channels before they were mixed
        self.resampler = None

    def add(self, frame):
        """Take the next frame of sound."""
        import av

        begins = frame.time
        if begins is None:
            begins = 0.0 if self.begins is None else self.until
        if self.begins is None:
            self.begins = self.until = begins
        # Not with the end of the last packet: many short pauses make a long one.
        if begins - self.until > GAP:
            self.flush()
            missing = round((begins - self.begins) * self.sample_rate) - self.length
            self.keep(np.zeros([max(0, missing)]))
            self.until = begins
        if self.resampler is None:
            self.resampler = av.AudioResampler("fltp", frame.layout, self.sample_rate)
        self.until += frame.samples / frame.sample_rate
        for piece in self.resampler.resample(frame):
            self.mix(piece)

    def flush(self):
        """Bring out what the resampler still holds."""
        if self.resampler is not None:
            for piece in self.resampler.resample(None):
                self.mix(piece)
        self.resampler = None

    def mix(self, piece):
        """Append a frame of planar sound as the mean of its channels.

        ffmpeg's own mono of two is their sum over root two: 3 dB more, and loud sounds would clip.
        """
        channels = piece.to_ndarray()
        self.loudest = max(self.loudest, np.abs(channels).max(initial=0.0))
        self.keep(channels.mean(axis=0))

    def keep(self, samples):
        """Append samples [N]."""
        self.parts.append(np.asarray(samples, np.float32))
        self.length += len(samples)

    def samples(self):
        """Everything so far, float32 [N] in [-1, 1]; Unreadable if any of it is not finite."""
        self.flush()
        if not self.parts:
            return np.zeros([0], np.float32)
        samples = np.concatenate(self.parts)
        if not np.isfinite(samples).all():
            raise Unreadable("its sound holds NaN or infinite samples")
        return np.clip(samples, -1, 1)
