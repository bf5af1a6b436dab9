"""Generators whose steps are inside a unit of work, and nothing between them: streamed responses, jobs that yield."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from poolscope.core.work_scope import Begins, WorkScope
    from poolscope.types import LibraryObject


class _NoWorkScope:
    """The work scope where no unit of work began."""

    def enter(self) -> None:
        pass

    def leave(self) -> None:
        pass

    def end(self) -> None:
        pass

    def end_in_collection(self) -> None:
        pass


_NO_WORK_SCOPE: Final = _NoWorkScope()


def stepping(begins: Begins, function: Callable[..., Any]) -> Callable[..., Any]:
    """
    Make a generator function whose steps, and nothing between them, are inside a unit of work that ends with it.

    Args:
        begins: Begins the unit of work; called at the first step.
        function: Makes the generator; that gets whatever is sent and thrown.
    """

    def call(*args: LibraryObject, **kwargs: LibraryObject) -> Generator[LibraryObject, LibraryObject, LibraryObject]:
        way: WorkScope | _NoWorkScope = _NO_WORK_SCOPE
        try:
            try:
                way = begins() or way
                generator = function(*args, **kwargs)
                step, value = generator.send, None
                while True:
                    try:
                        item = step(value)
                    except StopIteration as stop:
                        return stop.value
                    way.leave()
                    try:
                        value = yield item
                    except GeneratorExit:
                        way.enter()
                        try:
                            generator.close()
                        finally:
                            way.end_in_collection()
                        raise
                    except BaseException as error:  # noqa: BLE001 - it is the generator's
                        step, value = generator.throw, error
                    else:
                        step = generator.send
                    way.enter()
            finally:
                way.end()
        except BaseException:
            way.end()  # again, if that was interrupted
            raise

    return call


def async_stepping(begins: Begins, function: Callable[..., Any]) -> Callable[..., Any]:
    """The same for asynchronous generator functions."""

    async def call(*args: LibraryObject, **kwargs: LibraryObject) -> AsyncGenerator[LibraryObject, LibraryObject]:
        way: WorkScope | _NoWorkScope = _NO_WORK_SCOPE
        try:
            try:
                way = begins() or way
                generator = function(*args, **kwargs)
                step, value = generator.asend, None
                while True:
                    try:
                        item = await step(value)
                    except StopAsyncIteration:
                        return
                    way.leave()
                    try:
                        value = yield item
                    except GeneratorExit:
                        way.enter()
                        try:
                            await generator.aclose()
                        finally:
                            way.end_in_collection()
                        raise
                    except BaseException as error:  # noqa: BLE001 - it is the generator's
                        step, value = generator.athrow, error
                    else:
                        step = generator.asend
                    way.enter()
            except GeneratorExit:  # it is dropped while it waits, perhaps by the garbage collector
                way.end_in_collection()
                raise
            finally:
                way.end()
        except BaseException:
            way.end()  # again, if that was interrupted
            raise

    return call
