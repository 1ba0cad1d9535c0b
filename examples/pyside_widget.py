"""A Qt widget that speaks: `AvatarWidget` renders in a thread of its own and paints what belongs to the moment.

    python examples/pyside_widget.py build/nano-fp32 speech.wav

Needs the extra `examples`. It shows the picture; play the same samples with the sound library of your
application, and start its playback when `started` is emitted.
"""

from __future__ import annotations

import sys
import threading
from time import monotonic

import numpy as np
from PySide6.QtCore import QRect, Qt, QTimer, Signal
from PySide6.QtGui import QColor, QImage, QPainter, QPaintEvent
from PySide6.QtWidgets import QApplication, QWidget

from rap_edge.runtime import Avatar, Chunk, RapEdgeError, SessionError, read_audio, to_mono


class AvatarWidget(QWidget):
    """Shows one session of an avatar; `close` ends it."""

    started = Signal()
    spoken = Signal()
    _rendered = Signal(object)

    def __init__(self, avatar: Avatar, sample_rate: int) -> None:
        super().__init__()
        self._fps = avatar.spec.fps
        self._session = avatar.session(sample_rate=sample_rate)
        self._chunks: list[Chunk] = []
        self._frame = avatar.portrait
        self._start: float | None = None
        self._last = False
        # A signal from another thread is delivered in this widget's own.
        self._rendered.connect(self._take)
        self._timer = QTimer(self, interval=1000 // (2 * self._fps), timerType=Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        self._timer.start()
        self._thread = threading.Thread(target=self._render, daemon=True)
        self._thread.start()
        self.resize(512, 512)

    def push(self, pcm: np.ndarray) -> None:
        """Let it say mono samples."""
        self._session.push(pcm)

    def finish(self) -> None:
        """Nothing more will be said; `spoken` is emitted when all of it has been shown."""
        self._session.finish()

    def closeEvent(self, event: object) -> None:  # noqa: N802 - Qt's name
        self._timer.stop()
        self._session.close()
        self._thread.join()

    def paintEvent(self, event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        height, width, _ = self._frame.shape
        image = QImage(self._frame.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
        side = min(self.width(), self.height())
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.fillRect(self.rect(), QColor(18, 18, 20))
        painter.drawImage(QRect((self.width() - side) // 2, (self.height() - side) // 2, side, side), image)

    def _render(self) -> None:
        try:
            while self._session.wait():
                for chunk in self._session.chunks():
                    self._rendered.emit(chunk)
            self._rendered.emit(None)
        except SessionError:
            # Closed between two chunks.
            return
        except RapEdgeError as error:
            print(error, file=sys.stderr)
            self._rendered.emit(None)

    def _take(self, chunk: Chunk | None) -> None:
        self._last = chunk is None
        if chunk is not None:
            self._chunks.append(chunk)
            if self._start is None:
                self._start = monotonic()
                self.started.emit()

    def _tick(self) -> None:
        if self._start is None:
            return
        now = monotonic() - self._start
        while self._chunks and self._chunks[0].pts + self._chunks[0].duration <= now:
            self._chunks.pop(0)
        if self._chunks:
            chunk = self._chunks[0]
            index = max(int((now - chunk.pts) * self._fps), 0)
            if index < len(chunk.frames):
                self._frame = chunk.frames[index]
                self.update()
        elif self._last:
            self._timer.stop()
            self.spoken.emit()


def main(bundle: str, audio: str) -> None:
    application = QApplication.instance() or QApplication([])
    with Avatar.open(bundle) as avatar, read_audio(audio) as source:
        widget = AvatarWidget(avatar, source.rate)
        widget.spoken.connect(application.quit)
        for block in source:
            widget.push(to_mono(block))
        widget.finish()
        widget.show()
        application.exec()
        widget.close()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except RapEdgeError as error:
        sys.exit(f"pyside_widget: {error}")
