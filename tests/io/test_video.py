"""Reading videos: every frame at its own time, however it was coded, turned, timed or damaged."""

import builtins
import sys
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from patchatlas.errors import FormatError, InputError, MissingExtraError, PatchAtlasError, UsageError
from patchatlas.geometry.frame import Frame
from patchatlas.io.video import Number, Video, VideoFrame, nearest_to_grid, open_video
from tests.io.video_files import B_FRAMES, MATRICES, every, make_sound, make_video, number_in, picture, turn

TENTH = Fraction(1, 10)

UNEVEN = [Fraction(n, 1000) for n in (0, 40, 80, 700, 740, 780, 1500, 1501, 1560, 2400, 2440, 2900)]
"""A phone's variable rate, made worse."""


def seen(frames: list[VideoFrame]) -> list[tuple[int, Fraction, int]]:
    """Number, time and the number in the pixels of each frame."""
    return [(frame.number, frame.time, number_in(frame.pixels)) for frame in frames]


def read(video: Video, fps: Number | None = None, start: Number = 0) -> list[VideoFrame]:
    return list(video.frames(fps, start=start))


@pytest.mark.parametrize(
    ("name", "codec", "options", "pix_fmt"),
    [
        ("b.mp4", "libx264", B_FRAMES, "yuv420p"),
        ("b.mkv", "libx264", B_FRAMES, "yuv420p"),
        ("b.ts", "libx264", B_FRAMES, "yuv420p"),
        ("plain.avi", "mpeg4", {"g": "6"}, "yuv420p"),
        ("b.avi", "mpeg4", {"g": "6", "bf": "2"}, "yuv420p"),
        ("program.mpg", "mpeg2video", {}, "yuv420p"),
        ("moving.gif", "gif", {}, "rgb8"),
    ],
)
def test_every_frame_comes_once_at_its_time_and_from_any_start(
    tmp_path: Path, name: str, codec: str, options: dict[str, str], pix_fmt: str
) -> None:
    path = make_video(tmp_path / name, every(TENTH, 30), codec=codec, options=options, pix_fmt=pix_fmt, tick=TENTH)
    video = open_video(path)
    assert seen(read(video)) == [(n, n * TENTH, n) for n in range(30)]
    assert (video.facts.frames, video.facts.size_hw, video.facts.orientation) == (30, (48, 64), 1)
    assert (video.facts.rate, video.facts.variable_rate, video.problems) == (10, False, {})
    for start in (Fraction(1, 20), TENTH, Fraction(8, 10), Fraction(16, 10), Fraction(17, 10), Fraction(29, 10)):
        assert seen(read(video, start=start)) == [(n, n * TENTH, n) for n in range(30) if n * TENTH >= start]
    assert [frame.number for frame in video.frames(start=0.5, end=0.8)] == [5, 6, 7]
    assert read(video, start=3) == []


def test_program_stream_whose_times_are_others_after_a_seek(tmp_path: Path) -> None:
    """It times only some frames, and FFmpeg guesses the rest anew: it is read from its beginning."""
    rng = np.random.default_rng(5)
    noise = rng.integers(0, 255, (40, 40, 64, 3), dtype=np.uint8)
    pictures = [np.concatenate([picture(n)[:8], noise[n]]) for n in range(40)]
    video = open_video(
        make_video(tmp_path / "p.mpg", every(TENTH, 40), codec="mpeg2video", pictures=pictures, tick=TENTH)
    )
    whole = read(video)
    for start in (1, Fraction(16, 10), Fraction(25, 10)):
        part = read(video, start=start)
        assert seen(part) == [one for one in seen(whole) if one[1] >= start]
        assert all(np.array_equal(one.pixels, whole[one.number].pixels) for one in part)


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_variable_rate_keeps_the_true_times(tmp_path: Path, name: str) -> None:
    video = open_video(make_video(tmp_path / name, UNEVEN, options=B_FRAMES))
    assert seen(read(video)) == [(n, time, n) for n, time in enumerate(UNEVEN)]
    assert video.facts.variable_rate
    # Nearest to 0, 500, 1000, 1500, 2000, 2500 ms are those at 0, 700, 780, 1500, 2400, 2440.
    assert seen(read(video, 2)) == [(n, UNEVEN[n], n) for n in (0, 3, 5, 6, 9, 10)]
    assert seen(read(video, 2, start=1)) == [(n, UNEVEN[n], n) for n in (6, 9, 10)]
    assert video.sample_times(2, start=1) == tuple(UNEVEN[n] for n in (6, 9, 10))


def test_grid_does_not_drift_as_counting_frames_does(tmp_path: Path) -> None:
    """Every sixth frame of 29.97 is 4.995 a second; the earlier project took `int(29.97 / 4)`, and so 4.28 for 4."""
    rate = Fraction(30000, 1001)
    video = open_video(make_video(tmp_path / "ntsc.mp4", every(1 / rate, 240), tick=Fraction(1, 30000)))
    times = video.sample_times(4)
    assert len(times) == 32
    assert all(abs(time - Fraction(k, 4)) <= 1 / (2 * rate) for k, time in enumerate(times))
    assert [time for _, time, _ in seen(read(video, 4))] == list(times)


def test_sampling_at_the_own_rate_gives_every_frame_though_times_are_rounded(tmp_path: Path) -> None:
    """Matroska rounds to milliseconds: 33, 67, 100 ..."""
    rate = Fraction(30000, 1001)
    video = open_video(make_video(tmp_path / "ntsc.mkv", every(1 / rate, 60)))
    assert not video.facts.variable_rate
    assert len(video.sample_times(29.97)) == 60
    assert len(video.sample_times(1000)) == 60


@given(
    gaps=st.lists(st.integers(1, 40), max_size=12),
    step=st.fractions(min_value=Fraction(1, 50), max_value=3, max_denominator=60),
)
def test_nearest_to_grid_is_what_a_search_finds(gaps: list[int], step: Fraction) -> None:
    ticks = np.cumsum([0, *gaps]).astype(np.int64)
    at = [int(tick) * step for tick in ticks]
    count = int(at[-1]) + 1
    slow = {min(range(len(at)), key=lambda n: (abs(at[n] - k), n)) for k in range(count)}
    assert nearest_to_grid(ticks, step).tolist() == sorted(slow)


def test_rate_must_be_positive(tmp_path: Path) -> None:
    video = open_video(make_video(tmp_path / "v.mp4", every(TENTH, 3)))
    with pytest.raises(UsageError, match="must be positive"):
        video.frames(0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_videos_come_upright(tmp_path: Path, orientation: int) -> None:
    """Phones store the sensor's raster and say how it is to be turned."""
    upright = picture(77, (64, 80) if orientation >= 5 else (80, 64))
    frame = Frame.from_exif(upright.shape[:2][::-1] if orientation >= 5 else upright.shape[:2], orientation)
    # Look up for each stored pixel where it is seen upright.
    rows, columns = np.mgrid[: frame.source_size[0], : frame.source_size[1]]
    centres = torch.from_numpy(np.stack([columns.ravel(), rows.ravel()], axis=1) + 0.5)
    at = frame.from_source(centres).floor().long().numpy()
    stored = upright[at[:, 1], at[:, 0]].reshape(*frame.source_size, 3)

    path = make_video(tmp_path / "v.mp4", every(TENTH, 2), size_hw=frame.source_size, pictures=[stored] * 2)
    video = open_video(turn(path, MATRICES[orientation]))
    assert (video.facts.orientation, video.facts.size_hw) == (orientation, upright.shape[:2])
    assert video.facts.frame == frame
    for seen_frame in video.frames():
        assert seen_frame.pixels.shape == upright.shape
        assert np.abs(seen_frame.pixels.astype(int) - upright).mean() < 4
        assert number_in(seen_frame.pixels) == 77


def test_slanted_video_is_refused(tmp_path: Path) -> None:
    path = turn(make_video(tmp_path / "v.mp4", every(TENTH, 2)), (1, 1, -1, 1))
    with pytest.raises(FormatError, match=r"turned by -45 degrees.*only right angles"):
        open_video(path)


@pytest.mark.parametrize("size_hw", [(49, 65), (1, 64), (33, 70)])
def test_odd_sizes(tmp_path: Path, size_hw: tuple[int, int]) -> None:
    pictures = [np.full((*size_hw, 3), 40 * n, dtype=np.uint8) for n in range(3)]
    path = make_video(
        tmp_path / "v.mkv", every(TENTH, 3), size_hw=size_hw, codec="ffv1", pix_fmt="bgr0", pictures=pictures
    )
    frames = read(open_video(path))
    assert [np.array_equal(frame.pixels, pixels) for frame, pixels in zip(frames, pictures, strict=True)] == [True] * 3


def test_grey_video_is_rgb(tmp_path: Path) -> None:
    path = make_video(tmp_path / "v.mkv", every(TENTH, 3), codec="ffv1", pix_fmt="gray")
    frames = read(open_video(path))
    assert [number_in(frame.pixels) for frame in frames] == [0, 1, 2]
    assert frames[0].pixels.shape == (48, 64, 3)
    assert np.ptp(frames[0].pixels, axis=2).max() == 0


def test_colours_are_rgb_not_bgr(tmp_path: Path) -> None:
    """The earlier project fed one embedder RGB and the other BGR."""
    (frame,) = read(open_video(make_video(tmp_path / "v.mp4", [Fraction(0)])))
    assert frame.pixels[-8, 8] == pytest.approx([255, 0, 0], abs=12)


def test_one_frame(tmp_path: Path) -> None:
    video = open_video(make_video(tmp_path / "v.mp4", [Fraction(0)]))
    assert seen(read(video, 4)) == [(0, 0, 0)]
    assert video.facts.duration > 0


def test_a_late_first_frame_is_time_zero(tmp_path: Path) -> None:
    video = open_video(make_video(tmp_path / "v.mkv", [Fraction(5) + n * TENTH for n in range(4)]))
    assert seen(read(video, start=TENTH)) == [(n, n * TENTH, n) for n in (1, 2, 3)]


# -- what is wrong with files ------------------------------------------------------------------------------------------


def noisy(tmp_path: Path, name: str, **options: object) -> Path:
    """A video whose frames take up room, so that a cut lies among them."""
    rng = np.random.default_rng(5)
    pictures = [rng.integers(0, 255, (48, 64, 3), dtype=np.uint8) for _ in range(40)]
    return make_video(tmp_path / name, every(TENTH, 40), pictures=pictures, options=B_FRAMES, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv", "cut.flv"])
def test_cut_video_gives_what_it_has_and_one_reason(tmp_path: Path, name: str) -> None:
    muxer = {"movflags": "faststart"} if name.endswith("mp4") else None
    path = noisy(tmp_path, name, muxer=muxer)
    whole = [frame.pixels for frame in open_video(path).frames()]
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    video = open_video(path)
    assert list(video.problems) == ["truncated"]
    frames = read(video)
    assert 10 < video.facts.frames < 30
    assert len(frames) >= video.facts.frames - 2  # decoding frames side by side would lose three of them
    # At the cut B frames are missing whose neighbours are there.
    assert [frame.number for frame in frames[:-4]] == list(range(len(frames) - 4))
    assert all(np.array_equal(frame.pixels, whole[frame.number]) for frame in frames[:-4])
    assert list(video.problems) == ["truncated"]
    assert "cut short" in video.problems["truncated"]


def test_the_loss_of_the_last_frames_is_seen(tmp_path: Path) -> None:
    """Too short a time for durations to tell."""
    path = noisy(tmp_path, "cut.mp4", muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 96 // 100])
    video = open_video(path)
    assert video.problems.keys() == {"truncated"}
    assert "40 frames are announced, 3" in video.problems["truncated"]


def test_damage_in_the_middle_is_listed_and_the_rest_is_read(tmp_path: Path) -> None:
    path = noisy(tmp_path, "hurt.mp4")
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = bytes(6000)
    path.write_bytes(content)
    video = open_video(path)
    assert video.problems == {}
    numbers = [frame.number for frame in video.frames()]
    assert numbers[0] == 0
    assert numbers[-1] == 39
    assert all(one < other for one, other in pairwise(numbers))
    assert "damaged or missing, the first at" in video.problems["damaged"]


def test_recording_that_was_broken_off(tmp_path: Path) -> None:
    path = noisy(tmp_path, "off.mp4")
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(FormatError, match=r"index \(moov\) is missing"):
        open_video(path)


def bad_files(folder: Path) -> dict[str, Path]:
    """Files that are no videos, by what the message must say."""
    files = {
        "not a video": folder / "words.mp4",
        r"empty \(0 bytes\)": folder / "empty.mp4",
        "holds sound": make_sound(folder / "sound.m4a"),
        "not a video that can be read": folder / "list.ffconcat",
    }
    files["not a video"].write_text("these are words, and no video\n" * 50, encoding="utf-8")
    files[r"empty \(0 bytes\)"].touch()
    # A list that FFmpeg would follow to another file.
    make_video(folder / "other.mp4", every(TENTH, 2))
    files["not a video that can be read"].write_text("ffconcat version 1.0\nfile other.mp4\n", encoding="utf-8")
    return files


def test_files_that_are_no_videos(tmp_path: Path) -> None:
    for message, path in bad_files(tmp_path).items():
        with pytest.raises(FormatError, match=message):
            open_video(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "none.mp4", tmp_path, "https://example.org/video.mp4"):
        with pytest.raises(InputError, match="there is no video file"):
            open_video(path)


def test_video_without_frames(tmp_path: Path) -> None:
    path = tmp_path / "none.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        stream.codec_context.open()
        container.start_encoding()
    with pytest.raises(FormatError, match="no frame in it"):
        open_video(path)


def test_avi_without_times_is_refused(tmp_path: Path) -> None:
    """H.264 with B frames in AVI: there are no times in the file, and FFmpeg's guess puts frames in the wrong order."""
    path = make_video(tmp_path / "b.avi", every(TENTH, 20), options=B_FRAMES, tick=TENTH)
    with pytest.raises(FormatError, match="times out of order"):
        open_video(path)


def joined(folder: Path, *, second: Fraction, rows: int) -> Path:
    """Two transport streams one after the other; the other one begins at `second` and has so many rows."""
    parts = [
        make_video(folder / f"{n}.ts", [begin + time for time in every(TENTH, 8)], size_hw=(height, 64)).read_bytes()
        for n, (begin, height) in enumerate(((Fraction(0), 48), (second, rows)))
    ]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(parts))
    return path


def test_change_of_size_is_refused(tmp_path: Path) -> None:
    video = open_video(joined(tmp_path, second=Fraction(1), rows=64))
    with pytest.raises(FormatError, match="changes its size from 64 x 48 to 64 x 64 after frame 7"):
        read(video)


def test_joined_files_whose_times_begin_anew_are_listed(tmp_path: Path) -> None:
    video = open_video(joined(tmp_path, second=Fraction(0), rows=48))
    assert [frame.number for frame in video.frames()] == list(range(8))
    assert "8 frames have the time of another" in video.problems["repeated"]


def test_joined_files_whose_times_overlap_are_listed(tmp_path: Path) -> None:
    """Time never runs backwards, whatever the file does."""
    video = open_video(joined(tmp_path, second=Fraction(35, 100), rows=48))
    frames = read(video)
    assert all(one.time < other.time and one.number < other.number for one, other in pairwise(frames))
    assert [number_in(frame.pixels) for frame in frames[:8]] == list(range(8))
    left_out = 16 - len(frames)
    assert left_out > 0
    assert f"{left_out} of the frames asked for" in video.problems["damaged"]


def test_huge_frames_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="64 x 48 pixels, allowed are 1000"):
        open_video(make_video(tmp_path / "v.mp4", every(TENTH, 2)), max_pixels=1000)


@pytest.mark.parametrize("name", ["fuzz.mp4", "fuzz.mkv", "fuzz.ts"])
def test_random_damage_never_ends_in_another_error(tmp_path: Path, name: str) -> None:
    content = np.frombuffer(noisy(tmp_path, name).read_bytes(), dtype=np.uint8)
    rng = np.random.default_rng(3)
    path = tmp_path / f"hurt{Path(name).suffix}"
    read_well = 0
    for _ in range(12):
        hurt = content.copy()
        hurt[rng.integers(0, len(hurt), 8)] = rng.integers(0, 256, 8)
        path.write_bytes(hurt.tobytes())
        try:
            read_well += len(read(open_video(path), 5)) > 0
        except PatchAtlasError:
            continue
    assert read_well > 0


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_video(tmp_path / "v.mp4", every(TENTH, 2))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[video\]"):
        open_video(path)


def test_only_the_frames_asked_for_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Frames are decoded as they are asked for; the earlier project held all of them."""
    video = open_video(make_video(tmp_path / "v.mp4", every(TENTH, 60)))
    converted = []
    import patchatlas.io.video as module

    whole = module.upright
    monkeypatch.setattr(module, "upright", lambda pixels, frame: converted.append(1) or whole(pixels, frame))
    frames = video.frames(5)
    assert converted == []
    assert [next(frames).number for _ in range(3)] == [0, 2, 4]
    assert len(converted) == 3
    frames.close()  # type: ignore[attr-defined]


def test_opening_names_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name with a colon is a file, not a protocol."""
    path = make_video(tmp_path / "v.mp4", every(TENTH, 2))
    odd = path.rename(tmp_path / "concat:a|b.mp4")
    assert len(read(open_video(odd))) == 2
    monkeypatch.chdir(tmp_path)
    assert len(read(open_video("concat:a|b.mp4"))) == 2
    assert builtins.open is open


def test_packed_avi_gives_every_frame_in_the_order_of_showing(opencv_doc: Path) -> None:
    """XviD packs a B frame into the packet before it; the times that FFmpeg gives those frames go back and forth."""
    path = opencv_doc / "Megamind.avi"
    with av.open(str(path)) as container:
        plain = [frame.to_ndarray(format="rgb24") for frame in islice(container.decode(video=0), 40)]
    video = open_video(path)
    given = list(islice(video.frames(), 40))
    assert [frame.number for frame in given] == list(range(40))
    assert all(np.array_equal(one.pixels, other) for one, other in zip(given, plain, strict=True))
    gaps = np.diff([float(frame.time) for frame in given])
    np.testing.assert_allclose(gaps, 125 / 2997, rtol=1e-6)
    late = next(video.frames(start=1))
    assert np.array_equal(late.pixels, plain[late.number])
    assert [frame.time for frame in video.frames(4)] == list(video.sample_times(4))
    assert not video.problems


def test_avi_that_shows_frames_for_several_ticks_is_not_cut_short(opencv_doc: Path, tmp_path: Path) -> None:
    content = (opencv_doc / "tree.avi").read_bytes()
    video = open_video(opencv_doc / "tree.avi")
    assert not video.problems
    assert video.facts.variable_rate
    assert video.facts.frames == len(list(video.frames())) == 68
    cut = tmp_path / "cut.avi"
    cut.write_bytes(content[: len(content) // 2])
    assert "truncated" in open_video(cut).problems
