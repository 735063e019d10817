"""Recordings of launches on a GPU: CUDA graphs, which CuPy captures from a stream. (Not yet run on a GPU.)

    with GraphRecording() as recording:         like Recording (recording.py), for CuPy's arrays
        y = kernels.dense(x, w, b)
        on_host(print, y)
    recording.replay()

While a stream is captured nothing runs: what is launched on it becomes a graph. So a recording is cut where the host
takes part. `on_host` ends a graph, launches it, calls the function and begins the next one:

    graph (dense) | print | graph (nothing)

Others cut nothing. `beforehand` calls a function that reads nothing computed inside at once, and before the first graph
at each replay; `afterwards` calls one that only reads when the recording, or a replay, is over. What it reads the graph
itself copies to page-locked memory (`bring`), so that the host waits once for all of it.

Graphs and functions run one after another on the stream that is CuPy's current one, outside the recording or at the
replay. Between them nobody waits, unless a function does, as it must in order to read an array. Reading one elsewhere
inside is an error of CUDA's, after which the recording is refused.

A graph keeps addresses, so nothing else may ever lie there. What is allocated while it is captured comes from a pool of
the recording's own; memory that is freed meanwhile goes back there and may be used again, but only by later launches of
the same recording. The arrays that kernels were launched with stay alive as long as the recording.
"""

import contextlib
import threading

import numpy as np

from .recording import Recorder, refuse


class GraphRecording(Recorder):
    """Of launches on CuPy's current GPU, by this thread.

    An error inside leaves the block as it is; those of CUDA (`cupy.cuda.runtime.CUDARuntimeError`) include all that
    cannot be captured. What was captured since the last `on_host` has then not run.
    """

    def __init__(self):
        import cupy

        super().__init__()
        self._cupy = cupy
        # One that is not ordered against the default stream, which others could otherwise not use meanwhile.
        self._stream = cupy.cuda.Stream(non_blocking=True)
        chunks = self._chunks = []  # the pool's memory: alone, it would give some back where the GPU's runs out

        def allocate(size):
            chunks.append(cupy.cuda.Memory(size))
            return cupy.cuda.MemoryPointer(chunks[-1], 0)

        self._allocate, self._pool = allocate, cupy.cuda.MemoryPool(allocate)
        self._segment = None  # how to leave the segment that is being captured
        self._before, self._after = [], []  # what is called before the first segment, and after the last
        self._brings = False  # whether a graph copies to the host
        self._outside = None  # the stream that was current before

    def __enter__(self):
        # The pool can use none of the memory that the others' has free; giving it back waits for the GPU, once.
        self._cupy.get_default_memory_pool().free_all_blocks()
        self._outside = self._cupy.cuda.get_current_stream()
        super().__enter__()
        try:
            self._begin()
        except BaseException:
            self._leave(True)
            raise
        return self

    def __exit__(self, *error):
        failed = True
        try:
            if error[0] is None:
                self._end()
                self._finish()
                failed = False
            else:
                self._abandon()
        finally:
            self._leave(failed)

    def replay(self, meanwhile=None):
        """Do it all again; `meanwhile` is called when the first graph, which may be all, has been launched."""
        for part in self._before:
            part()
        graph, *others = self._parts
        graph()
        if meanwhile is not None:
            meanwhile()
        for part in others:
            part()
        self._finish()

    def _finish(self):
        if self._brings:
            self._cupy.cuda.get_current_stream().synchronize()
        for function, args in self._after:
            self._call(function, args)

    def _call(self, function, args):
        if self.thread is None:  # a replay
            function(*args)
        else:
            super()._call(function, args)

    def afterwards(self, function, args):
        self._after.append((function, [self.bring(arg) for arg in args]))

    def bring(self, array):
        if not isinstance(array, self._cupy.ndarray):
            return array
        self._brings = True
        memory = self._cupy.cuda.alloc_pinned_memory(array.nbytes)
        runtime = self._cupy.cuda.runtime
        runtime.memcpyAsync(memory.ptr, array.data.ptr, array.nbytes, runtime.memcpyDeviceToHost, self._stream.ptr)
        self._kept.append(array)
        return np.frombuffer(memory, array.dtype, array.size).reshape(array.shape)

    def own_memory(self):
        return self._cupy.cuda.using_allocator(self._allocate)

    def beforehand(self, function, args):
        self._before.append(lambda: function(*args))
        with self._outside:
            self._call(function, args)

    def on_host(self, function, args):
        self._end()
        super().on_host(function, args)
        self._begin()

    def launched(self, drive, rounds, chunks, parallel, args):
        if self.thread == threading.get_ident():
            refuse("a kernel ran on the CPU")

    def captured(self, kernel, grid, args, shared):
        if self.thread == threading.get_ident():
            self._kept.append(args)

    # Segments.

    def _begin(self):
        """Captures what is launched from now on, and gives it memory of the recording's pool."""
        with contextlib.ExitStack() as inside:
            inside.enter_context(self._cupy.cuda.using_allocator(self._pool.malloc))
            inside.enter_context(self._stream)
            self._stream.begin_capture()
            self._segment = inside.pop_all()

    def _end(self):
        """Ends the segment and runs it, on the stream that was current before."""
        segment, self._segment = self._segment, None
        with segment:
            graph = self._stream.end_capture()
        self._parts.append(graph.launch)
        graph.launch()

    def _abandon(self):
        """Ends the segment, if there is one, without a graph."""
        segment, self._segment = self._segment, None
        # An error of CUDA's makes the capture invalid, and ending it says so once more.
        if segment is not None:
            with segment, contextlib.suppress(Exception):
                self._stream.end_capture()
